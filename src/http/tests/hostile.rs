//! What a client may send to do harm, and what it gets for it.

use super::*;

#[tokio::test]
async fn whatever_is_sent_is_answered_below_500() {
    let server = Server::start().await;
    server.publish(&[(0, 0, event(1, "2025-01-01T12:30:00Z", "play"))]);
    let long = "x".repeat(7000);
    let many = "a=1&".repeat(1500);
    let percent = "%25".repeat(2000);
    let nested = "%5B".repeat(2000);
    let targets = [
        "/v1/enriched-events?%00=%00",
        "/v1/enriched-events?from=%00&to=%00",
        "/v1/enriched-events?from=%ff%fe&to=%c3%28",
        "/v1/enriched-events?from=%&to=%1",
        "/v1/enriched-events?=&==&&&",
        "/v1/enriched-events?from[]=1",
        "/v1/enriched-events?limit=99999999999999999999",
        "/v1/enriched-events?cursor=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "/v1/enriched-events/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/v1/enriched-events/../../etc/passwd",
        "/v1/enriched-events/1/explain",
        "/v1/enriched-events/",
        "/v1/content/%00",
        "/v1/content/%ff%ff",
        "/v1/content?limit=1%00",
        "//v1//content",
        "/%",
        "/%ff",
        "*",
    ];
    let generated = [long, many, percent, nested].map(|q| format!("/v1/enriched-events?{q}"));
    for target in targets
        .iter()
        .copied()
        .chain(generated.iter().map(String::as_str))
    {
        for method in ["GET", "HEAD", "POST", "OPTIONS", "BREW"] {
            let reply = server.ask(method, target, "").await;
            assert!(
                (400..500).contains(&reply.status),
                "{method} {target}: {}",
                reply.status
            );
        }
    }
    for raw in [
        b"\x00\x01\x02\r\n\r\n".as_slice(),
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v1/content\x00 HTTP/1.1\r\n\r\n",
        b"GET /v1/content\xff\xfe HTTP/1.0\r\n\r\n",
        b"GET /v1/content HTTP/1.0\r\nContent-Length: -1\r\n\r\n",
        b"GET /v1/content HTTP/1.0\r\nAccept: \xff\r\nIf-None-Match: \xff\r\n\r\n",
    ] {
        let reply = server.raw(raw).await;
        if !reply.is_empty() {
            let status = Server::parse(&reply).status;
            assert!(status < 500, "{status} to {}", String::from_utf8_lossy(raw));
        }
    }
    assert_eq!(
        server.get("/v1/content").await.status,
        200,
        "it still serves"
    );
}

#[tokio::test]
async fn an_address_or_a_body_beyond_reason_is_refused() {
    let server = Server::start().await;
    let long = format!("/v1/content?cursor={}", "x".repeat(9000));
    server.get(&long).await.problem(414);
    let reply = server
        .ask("GET", "/v1/content", "Content-Length: 1000000000\r\n")
        .await;
    reply.problem(413);
    let reply = server
        .ask("POST", "/v1/content", "Content-Length: 1000000000\r\n")
        .await;
    reply.problem(413);
}

#[tokio::test]
async fn unknown_addresses_and_methods_are_problems_that_say_what_is_allowed() {
    let server = Server::start().await;
    for target in ["/", "/v1", "/v2/content", "/v1/content/", "/metrics/x"] {
        server.get(target).await.problem(404);
    }
    for target in ["/v1/content", "/v1/enriched-events/1", "/livez"] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let reply = server.ask(method, target, "").await;
            reply.problem(405);
            let allowed = reply.header("allow").unwrap();
            assert!(
                allowed.contains("GET") && allowed.contains("HEAD"),
                "{allowed}"
            );
        }
    }
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let server = Server::start().await;
    server.publish(&[(0, 0, event(1, "2025-01-01T12:30:00Z", "play"))]);
    for target in [
        "/v1/enriched-events/1",
        "/v1/enriched-events/2",
        "/v1/content",
        "/livez",
        "/nowhere",
    ] {
        let get = server.ask("GET", target, "").await;
        let head = server.ask("HEAD", target, "").await;
        assert_eq!(head.status, get.status, "{target}");
        assert_eq!(head.header("content-type"), get.header("content-type"));
        assert_eq!(head.header("content-length"), get.header("content-length"));
        assert!(head.body.is_empty() && !get.body.is_empty());
    }
}
