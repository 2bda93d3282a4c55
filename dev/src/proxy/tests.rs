//! The proxy between a plain socket and a broker that answers every request with its number.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::frame::Frame;
use super::{ApiKey, Proxy, Requests};

const LIMIT: Duration = Duration::from_secs(20);

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn request(key: ApiKey, number: i32, text: &str) -> Vec<u8> {
    let mut body = (key as i16).to_be_bytes().to_vec();
    body.extend([0, 1]);
    body.extend(number.to_be_bytes());
    body.extend([0, 3]);
    body.extend(b"app");
    body.extend(text.as_bytes());
    let mut frame = (body.len() as i32).to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

/// Answers each request with its number, and tells the numbers in the order in which they came.
fn answer(proxy: &Proxy) -> io::Result<Receiver<i32>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, proxy.upstream()))?;
    let (seen, numbers) = channel();
    std::thread::spawn(move || {
        for link in listener.incoming().flatten() {
            let seen = seen.clone();
            std::thread::spawn(move || {
                while let Ok(Some(frame)) = Frame::read(&link) {
                    let number = frame.request_id().unwrap_or_default();
                    let mut reply = 4_i32.to_be_bytes().to_vec();
                    reply.extend(number.to_be_bytes());
                    if seen.send(number).is_err() || (&link).write_all(&reply).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(numbers)
}

fn client(proxy: &Proxy) -> io::Result<TcpStream> {
    let client = TcpStream::connect(proxy.bootstrap())?;
    client.set_read_timeout(Some(LIMIT))?;
    Ok(client)
}

fn reply(client: &TcpStream) -> io::Result<Option<i32>> {
    Ok(Frame::read(client)?.and_then(|frame| frame.reply_id()))
}

#[test]
fn requests_pass_and_a_held_one_keeps_only_its_own_connection() -> Outcome {
    let proxy = Proxy::start()?;
    let numbers = answer(&proxy)?;
    let (mut one, mut two) = (client(&proxy)?, client(&proxy)?);
    let trap = proxy.hold(
        Requests::of(ApiKey::EndTxn)
            .from_client("app")
            .naming("t-0"),
    );
    one.write_all(&request(ApiKey::EndTxn, 1, "t-1"))?;
    assert_eq!(reply(&one)?, Some(1));
    one.write_all(&request(ApiKey::EndTxn, 2, "t-0"))?;
    one.write_all(&request(ApiKey::Heartbeat, 3, ""))?;
    trap.await_caught(1, LIMIT)?;
    two.write_all(&request(ApiKey::Heartbeat, 4, ""))?;
    assert_eq!(reply(&two)?, Some(4));
    assert_eq!(trap.answered(), 0);
    trap.release();
    trap.await_answered(1, LIMIT)?;
    assert_eq!((reply(&one)?, reply(&one)?), (Some(2), Some(3)));
    let numbers: Vec<i32> = numbers.try_iter().collect();
    assert_eq!(numbers, [1, 4, 2, 3]);
    Ok(())
}

#[test]
fn a_detached_request_reaches_the_broker_after_its_client_has_gone() -> Outcome {
    let proxy = Proxy::start()?;
    let numbers = answer(&proxy)?;
    let trap = proxy.detach(Requests::of(ApiKey::EndTxn).first(1));
    let mut one = client(&proxy)?;
    one.write_all(&request(ApiKey::EndTxn, 1, ""))?;
    assert_eq!(reply(&one)?, None);
    let mut two = client(&proxy)?;
    two.write_all(&request(ApiKey::EndTxn, 2, ""))?;
    assert_eq!(reply(&two)?, Some(2));
    trap.release();
    trap.await_answered(1, LIMIT)?;
    assert_eq!(numbers.try_iter().collect::<Vec<_>>(), [2, 1]);
    Ok(())
}

#[test]
fn a_discarded_request_never_reaches_the_broker() -> Outcome {
    let proxy = Proxy::start()?;
    let numbers = answer(&proxy)?;
    let trap = proxy.hold(Requests::of(ApiKey::EndTxn));
    let mut one = client(&proxy)?;
    one.write_all(&request(ApiKey::EndTxn, 1, ""))?;
    trap.await_caught(1, LIMIT)?;
    trap.discard();
    assert_eq!(reply(&one)?, None);
    let mut two = client(&proxy)?;
    two.write_all(&request(ApiKey::EndTxn, 2, ""))?;
    assert_eq!(reply(&two)?, Some(2));
    assert_eq!(numbers.try_iter().collect::<Vec<_>>(), [2]);
    Ok(())
}

#[test]
fn a_lost_reply_is_that_of_a_request_that_passed() -> Outcome {
    let proxy = Proxy::start()?;
    let numbers = answer(&proxy)?;
    let trap = proxy.lose_reply(Requests::of(ApiKey::EndTxn));
    let mut one = client(&proxy)?;
    one.write_all(&request(ApiKey::EndTxn, 1, ""))?;
    assert_eq!(reply(&one)?, None);
    assert_eq!((trap.caught(), trap.answered()), (1, 1));
    assert_eq!(numbers.recv_timeout(LIMIT)?, 1);
    Ok(())
}

#[test]
fn a_stalled_connection_goes_on_where_it_stood() -> Outcome {
    let proxy = Proxy::start()?;
    let numbers = answer(&proxy)?;
    let mut one = client(&proxy)?;
    proxy.stall();
    one.write_all(&request(ApiKey::Heartbeat, 1, ""))?;
    assert!(numbers.try_recv().is_err());
    proxy.go_on();
    assert_eq!(reply(&one)?, Some(1));
    Ok(())
}

#[test]
fn connections_are_reset_or_closed_and_refused_until_restored() -> Outcome {
    let proxy = Proxy::start()?;
    let _numbers = answer(&proxy)?;
    let mut one = client(&proxy)?;
    one.write_all(&request(ApiKey::Heartbeat, 1, ""))?;
    assert_eq!(reply(&one)?, Some(1));
    proxy.reset();
    let error = one.read(&mut [0]).err().map(|error| error.kind());
    assert_eq!(error, Some(io::ErrorKind::ConnectionReset));
    let mut two = client(&proxy)?;
    two.write_all(&request(ApiKey::Heartbeat, 2, ""))?;
    assert_eq!(reply(&two)?, Some(2));
    proxy.cut();
    assert!(matches!(two.read(&mut [0]), Ok(0)));
    let three = client(&proxy)?;
    assert!(!matches!(reply(&three), Ok(Some(_))));
    proxy.restore();
    let mut four = client(&proxy)?;
    four.write_all(&request(ApiKey::Heartbeat, 4, ""))?;
    assert_eq!(reply(&four)?, Some(4));
    Ok(())
}
