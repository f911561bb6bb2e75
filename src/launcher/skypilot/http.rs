//! One request to an HTTP server on this machine: no TLS, a connection of its own, an answer that is read as it comes.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Full};
use hyper::HeaderMap;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::process::runner::{Capture, OutputLimit};

type Request = hyper::Request<Full<Bytes>>;

/// The reason why an answer cannot be used. None of them repeats a part of a body: it may hold secrets.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("no connection: {0}")]
    NoConnection(#[from] std::io::Error),
    #[error("the connection failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("its request could not be written: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("it is not healthy, or asks for a login")]
    Unhealthy,
    #[error("it did not answer in time")]
    Late,
    #[error("version {0} of its interface is not known to this server")]
    Version(String),
    #[error("it answered with status {0}")]
    Status(u16),
    #[error("its answer could not be read")]
    Unreadable,
    #[error("its answer is too large")]
    TooLarge,
    #[error("it failed with {0}")]
    Failed(String),
}

/// An answer, as far as it has come.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Capture,
}

impl Reply {
    /// An answer of which nothing has come yet. Of a long one the end is kept.
    pub(super) fn new(keep_end: bool) -> Self {
        Self {
            status: 0,
            headers: HeaderMap::new(),
            body: Capture::new(keep_end),
        }
    }
}

/// Sends `request` and reads the answer into `reply`. The connection ends with the future.
pub(super) async fn exchange(
    address: SocketAddr,
    request: Request,
    reply: &mut Reply,
) -> Result<(), Unusable> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async move {
        let (head, mut body) = sender.send_request(request).await?.into_parts();
        (reply.status, reply.headers) = (head.status.as_u16(), head.headers);
        while let Some(frame) = body.frame().await {
            if let Some(block) = frame?.data_ref() {
                let pushed = reply.body.push(block);
                pushed.map_err(|OutputLimit| Unusable::TooLarge)?;
            }
        }
        Ok(())
    };
    // The sender is dropped with the answer, and the connection ends.
    let (exchanged, _) = tokio::join!(exchange, connection);
    exchanged
}
