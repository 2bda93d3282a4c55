//! BigQuery's Storage Write interface: streams, and what their answers mean.

use super::super::SinkError;
use super::auth::Auth;
use super::rows::descriptor;
use crate::config::{BigQueryConfig, WEB, check_url};
use gcp_bigquery_client::google::cloud::bigquery::storage::v1 as storage;
use gcp_bigquery_client::google::rpc;
use prost::Message;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use storage::append_rows_request::{ProtoData, Rows};
use storage::append_rows_response::Response as Outcome;
use storage::big_query_write_client::BigQueryWriteClient;
use storage::storage_error::StorageErrorCode as Code;
use storage::write_stream::Type;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status, Streaming};

const URL: &str = "https://bigquerystorage.googleapis.com";
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long one answer is waited for.
const ANSWER: Duration = Duration::from_secs(30);
/// A connection that is open and silent is asked for a sign of life this often.
const KEEP_ALIVE: Duration = Duration::from_mins(1);
/// Rows of one request, in bytes: BigQuery takes 10 MB, with everything.
pub(super) const REQUEST_BYTES: usize = 9_000_000;
/// The largest message on the wire.
const MESSAGE_BYTES: usize = 20 << 20;

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Its rows were appended now.
    Appended,
    /// Its rows had been appended before.
    AlreadyThere,
    /// None of its rows was appended, because of these: index and reason.
    Refused(Vec<(usize, String)>),
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody knows whether the rows were appended: the same request is sent again.
    Transport(String),
    /// The stream is of no more use.
    Stream(SinkError),
}

/// What a finalized stream holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finalized {
    /// So many rows.
    Rows(i64),
    /// Nothing is known: the stream expired, or its table was deleted.
    Gone,
}

/// One connection to the service. Each partition has its own: a connection has room for a hundred open calls or so.
pub(super) struct Writer {
    client: BigQueryWriteClient<Channel>,
    auth: Arc<Auth>,
}

/// An open call that rows are appended through.
pub(super) struct Appending {
    requests: mpsc::Sender<storage::AppendRowsRequest>,
    answers: Streaming<storage::AppendRowsResponse>,
}

impl Writer {
    /// Connects when the first call is made.
    pub(super) fn new(config: &BigQueryConfig, auth: Arc<Auth>) -> Result<Self, SinkError> {
        let url = config.grpc_url.as_deref().unwrap_or(URL);
        check_url("sinks.bigquery.grpc_url", url, WEB).map_err(SinkError::Misconfigured)?;
        let wrong = |error: tonic::transport::Error| {
            SinkError::Misconfigured(format!("cannot make a client for {url}: {error}"))
        };
        let mut endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(wrong)?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        if url.starts_with("https://") {
            let tls = ClientTlsConfig::new().with_native_roots();
            endpoint = endpoint.tls_config(tls).map_err(wrong)?;
        }
        let client = BigQueryWriteClient::new(endpoint.connect_lazy())
            .max_encoding_message_size(MESSAGE_BYTES)
            .max_decoding_message_size(MESSAGE_BYTES);
        Ok(Self { client, auth })
    }

    /// Makes a stream whose rows are seen at once.
    pub(super) async fn create(&self, table: &str) -> Result<String, SinkError> {
        let request = storage::CreateWriteStreamRequest {
            parent: table.to_owned(),
            write_stream: Some(storage::WriteStream {
                r#type: Type::Committed as i32,
                ..Default::default()
            }),
        };
        let request = self.request(request, "parent", table).await?;
        let call = async { self.client.clone().create_write_stream(request).await };
        match within(call).await {
            Ok(stream) => Ok(stream.into_inner().name),
            Err(status) => Err(refusal("make a stream", &status)),
        }
    }

    /// Ends a stream: whoever still writes it is refused from now on. Ending it again gives the same answer.
    pub(super) async fn finalize(&self, stream: &str) -> Result<Finalized, SinkError> {
        let request = storage::FinalizeWriteStreamRequest {
            name: stream.to_owned(),
        };
        let request = self.request(request, "name", stream).await?;
        let call = async { self.client.clone().finalize_write_stream(request).await };
        match within(call).await {
            Ok(answer) => Ok(Finalized::Rows(answer.into_inner().row_count)),
            Err(status) if status.code() == tonic::Code::NotFound => Ok(Finalized::Gone),
            Err(status) => Err(refusal("finalize a stream", &status)),
        }
    }

    /// Opens a call with its first request, which also tells the form of the rows.
    pub(super) async fn open(
        &self,
        stream: &str,
        offset: i64,
        rows: Vec<Vec<u8>>,
    ) -> Result<(Appending, Answer), Failure> {
        let (requests, outgoing) = mpsc::channel(1);
        // Queued before the call: the service answers nothing, not even headers, before it has a request.
        let first = append(stream, offset, rows, true);
        requests.send(first).await.map_err(|_| closed())?;
        let call = self
            .request(ReceiverStream::new(outgoing), "write_stream", stream)
            .await;
        let call = call.map_err(Failure::Stream)?;
        let opened = within(async { self.client.clone().append_rows(call).await }).await;
        let answers = opened.map_err(|status| judge_status(&status))?.into_inner();
        let mut appending = Appending { requests, answers };
        let answer = appending.answer().await?;
        Ok((appending, answer))
    }

    /// A call with its token, and with what routes it.
    async fn request<T>(&self, body: T, key: &str, value: &str) -> Result<Request<T>, SinkError> {
        let mut request = Request::new(body);
        let metadata = request.metadata_mut();
        if let Ok(routed) = format!("{key}={value}").parse() {
            metadata.insert("x-goog-request-params", routed);
        }
        if let Some(token) = self.auth.token().await?
            && let Ok(bearer) = format!("Bearer {token}").parse()
        {
            metadata.insert("authorization", bearer);
        }
        Ok(request)
    }
}

impl Appending {
    /// Sends one more request and waits for its answer.
    pub(super) async fn append(
        &mut self,
        stream: &str,
        offset: i64,
        rows: Vec<Vec<u8>>,
    ) -> Result<Answer, Failure> {
        let request = append(stream, offset, rows, false);
        self.requests.send(request).await.map_err(|_| closed())?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Answer, Failure> {
        match within(self.answers.message()).await {
            Ok(Some(answer)) => judge(answer),
            Ok(None) => Err(closed()),
            Err(status) => Err(judge_status(&status)),
        }
    }
}

/// IMPORTANT: the offset is always explicit. It is what makes sending a request again harmless.
fn append(
    stream: &str,
    offset: i64,
    rows: Vec<Vec<u8>>,
    first: bool,
) -> storage::AppendRowsRequest {
    let schema = storage::ProtoSchema {
        proto_descriptor: Some(descriptor()),
    };
    storage::AppendRowsRequest {
        write_stream: stream.to_owned(),
        offset: Some(offset),
        trace_id: "thmanyah".to_owned(),
        rows: Some(Rows::ProtoRows(ProtoData {
            writer_schema: first.then_some(schema),
            rows: Some(storage::ProtoRows {
                serialized_rows: rows,
            }),
        })),
        ..Default::default()
    }
}

fn closed() -> Failure {
    Failure::Transport("BigQuery closed the connection".to_owned())
}

async fn within<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Status::deadline_exceeded("no answer in time");
    tokio::time::timeout(ANSWER, call).await.map_err(late)?
}

fn judge(answer: storage::AppendRowsResponse) -> Result<Answer, Failure> {
    if !answer.row_errors.is_empty() {
        let refused = answer.row_errors.into_iter();
        let refused = refused.map(|row| {
            (
                usize::try_from(row.index).unwrap_or(usize::MAX),
                row.message,
            )
        });
        return Ok(Answer::Refused(refused.collect()));
    }
    match answer.response {
        Some(Outcome::AppendResult(_)) => Ok(Answer::Appended),
        Some(Outcome::Error(error)) => verdict(
            tonic::Code::from(error.code),
            &error.message,
            &error.details,
        ),
        None => Err(Failure::Transport("an empty answer".to_owned())),
    }
}

fn judge_status(status: &Status) -> Failure {
    // A connection that broke has a cause here, and the code that the library makes of it says little. What the service said
    // has none.
    if let Some(cause) = status.source() {
        return Failure::Transport(format!("{}: {cause}", status.message()));
    }
    let details = rpc::Status::decode(status.details())
        .unwrap_or_default()
        .details;
    match verdict(status.code(), status.message(), &details) {
        Err(failure) => failure,
        // That the rows are there is told in an answer, not by the end of the call.
        Ok(_) => Failure::Transport(status.message().to_owned()),
    }
}

/// What an error means: the service's own code goes before that of gRPC, which is too coarse.
fn verdict(
    code: tonic::Code,
    message: &str,
    details: &[prost_types::Any],
) -> Result<Answer, Failure> {
    let own = details
        .iter()
        .filter(|detail| {
            detail
                .type_url
                .ends_with("google.cloud.bigquery.storage.v1.StorageError")
        })
        .find_map(|detail| storage::StorageError::decode(detail.value.as_slice()).ok())
        .and_then(|error| Code::try_from(error.code).ok())
        .unwrap_or(Code::Unspecified);
    let problem = format!(
        "BigQuery refuses rows: {message} ({code:?}, {})",
        own.as_str_name()
    );
    let fenced = || {
        Failure::Stream(SinkError::Fenced(format!(
            "the stream was ended by another process: {message}"
        )))
    };
    let again = || Failure::Stream(SinkError::Unavailable(problem.clone()));
    let wrong = || Failure::Stream(SinkError::Misconfigured(problem.clone()));
    match own {
        Code::OffsetAlreadyExists => return Ok(Answer::AlreadyThere),
        Code::StreamFinalized | Code::StreamAlreadyCommitted | Code::InvalidStreamState => {
            return Err(fenced());
        }
        Code::StreamNotFound | Code::OffsetOutOfRange => return Err(again()),
        Code::TableNotFound
        | Code::InvalidStreamType
        | Code::SchemaMismatchExtraFields
        | Code::CmekNotProvided
        | Code::InvalidCmekProvided
        | Code::CmekEncryptionError
        | Code::KmsPermissionDenied => return Err(wrong()),
        Code::KmsServiceError => return Err(Failure::Transport(problem)),
        Code::Unspecified => {}
    }
    match code {
        tonic::Code::AlreadyExists => Ok(Answer::AlreadyThere),
        tonic::Code::FailedPrecondition => Err(fenced()),
        // Whatever these are, the service may have counted rows that it did not take: only a count of the table can tell.
        tonic::Code::NotFound
        | tonic::Code::OutOfRange
        | tonic::Code::DataLoss
        | tonic::Code::Internal
        | tonic::Code::Unknown
        | tonic::Code::Ok => Err(again()),
        tonic::Code::InvalidArgument
        | tonic::Code::PermissionDenied
        | tonic::Code::Unimplemented => Err(wrong()),
        tonic::Code::Cancelled
        // The token of a call that has been open for long: the next one brings its own.
        | tonic::Code::Unauthenticated
        | tonic::Code::DeadlineExceeded
        | tonic::Code::ResourceExhausted
        | tonic::Code::Aborted
        | tonic::Code::Unavailable => Err(Failure::Transport(problem)),
    }
}

/// What a call that is not an append is refused for.
fn refusal(what: &str, status: &Status) -> SinkError {
    let problem = format!(
        "BigQuery does not {what}: {} ({:?})",
        status.message(),
        status.code()
    );
    match status.code() {
        tonic::Code::InvalidArgument
        | tonic::Code::PermissionDenied
        | tonic::Code::Unauthenticated
        | tonic::Code::Unimplemented => SinkError::Misconfigured(problem),
        // A table that was just made is not known everywhere at once.
        _ => SinkError::Unavailable(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: Code) -> Vec<prost_types::Any> {
        let error = storage::StorageError {
            code: code as i32,
            ..Default::default()
        };
        vec![prost_types::Any {
            type_url: "type.googleapis.com/google.cloud.bigquery.storage.v1.StorageError"
                .to_owned(),
            value: error.encode_to_vec(),
        }]
    }

    #[test]
    fn the_services_own_code_goes_before_grpcs() {
        let finalized = error(Code::StreamFinalized);
        for code in [
            tonic::Code::InvalidArgument,
            tonic::Code::FailedPrecondition,
        ] {
            let judged = verdict(code, "", &finalized);
            assert!(
                matches!(judged, Err(Failure::Stream(SinkError::Fenced(_)))),
                "{judged:?}"
            );
        }
        let exists = verdict(
            tonic::Code::InvalidArgument,
            "",
            &error(Code::OffsetAlreadyExists),
        );
        assert!(matches!(exists, Ok(Answer::AlreadyThere)), "{exists:?}");
        let extra = verdict(
            tonic::Code::Internal,
            "",
            &error(Code::SchemaMismatchExtraFields),
        );
        assert!(
            matches!(extra, Err(Failure::Stream(SinkError::Misconfigured(_)))),
            "{extra:?}"
        );
    }

    #[test]
    fn only_what_leaves_the_outcome_open_is_sent_again() {
        for code in (0..17).map(tonic::Code::from) {
            let again = matches!(verdict(code, "", &[]), Err(Failure::Transport(_)));
            let open = matches!(
                code,
                tonic::Code::Cancelled
                    | tonic::Code::Unauthenticated
                    | tonic::Code::DeadlineExceeded
                    | tonic::Code::ResourceExhausted
                    | tonic::Code::Aborted
                    | tonic::Code::Unavailable
            );
            assert_eq!(again, open, "{code:?}");
        }
    }

    #[test]
    fn rows_that_are_refused_come_before_the_error_of_their_request() {
        let answer = storage::AppendRowsResponse {
            row_errors: vec![storage::RowError {
                index: 2,
                message: "too long".to_owned(),
                ..Default::default()
            }],
            response: Some(Outcome::Error(rpc::Status {
                code: 3,
                ..Default::default()
            })),
            ..Default::default()
        };
        let judged = judge(answer);
        assert!(
            matches!(&judged, Ok(Answer::Refused(rows)) if rows[..] == [(2, "too long".to_owned())]),
            "{judged:?}"
        );
    }
}
