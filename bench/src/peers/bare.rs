//! A server of hyper and rustls that reads each request whole and returns the same bytes: what the network, TLS and HTTP cost
//! by themselves.

use std::convert::Infallible;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use exchange::tls;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::child::Running;
use super::pki::Pki;
use verifier::command;

/// The hidden command of the `bench` binary that serves.
pub const COMMAND: &str = "bare-server";

/// What the hidden command is told.
#[derive(clap::Args)]
pub struct Plan {
    /// Server certificate, PEM.
    #[arg(long)]
    certificate: PathBuf,
    /// Its key, PEM.
    #[arg(long)]
    key: PathBuf,
    /// Authorities of client certificates, PEM.
    #[arg(long)]
    client_ca: PathBuf,
    /// What every answer's body is.
    #[arg(long)]
    body: PathBuf,
}

/// Serves until standard input ends; prints where.
///
/// # Errors
/// A file cannot be read, or no port be had.
pub fn serve(plan: &Plan) -> anyhow::Result<()> {
    let text = |path: &Path| std::fs::read_to_string(path).with_context(|| path.display().to_string());
    let tls =
        tls::server_config(&text(&plan.certificate)?, &text(&plan.key)?, Some(&text(&plan.client_ca)?))?;
    let body = Bytes::from(std::fs::read(&plan.body).with_context(|| plan.body.display().to_string())?);
    // A parent that is gone, however it went, closes the pipe.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    // The runtime of the exchange.
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        command::line(listener.local_addr()?);
        accept(listener, tls, body).await
    })
}

async fn accept(listener: TcpListener, tls: Arc<ServerConfig>, body: Bytes) -> anyhow::Result<()> {
    let acceptor = TlsAcceptor::from(tls);
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let (acceptor, body) = (acceptor.clone(), body.clone());
        tokio::spawn(async move {
            // A connection that fails is the generator's to notice.
            if let Ok(stream) = acceptor.accept(socket).await {
                let service = service_fn(|request| answer(request, body.clone()));
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            }
        });
    }
}

async fn answer(request: Request<Incoming>, body: Bytes) -> Result<Response<Full<Bytes>>, Infallible> {
    let _ = request.into_body().collect().await;
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Starts one that answers with `body`.
///
/// # Errors
/// It does not start.
pub(super) fn start(folder: &Path, pki: &Pki, core: usize, body: &[u8]) -> anyhow::Result<Running> {
    let file = folder.join("bare-body");
    std::fs::write(&file, body)?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg(COMMAND)
        .args(["--certificate".as_ref(), pki.server_certificate.as_os_str()])
        .args(["--key".as_ref(), pki.server_key.as_os_str()])
        .args(["--client-ca".as_ref(), pki.ca.as_os_str()])
        .args(["--body".as_ref(), file.as_os_str()]);
    Running::speaking(&mut command, core, |line| Ok(line.trim().parse::<SocketAddr>()?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Serves in a thread until the test ends; gives where.
    pub(in crate::peers) fn serve_in_thread(pki: &Pki, body: &'static [u8]) -> SocketAddr {
        let text = |path: &Path| std::fs::read_to_string(path).unwrap();
        let (certificate, key) = (text(&pki.server_certificate), text(&pki.server_key));
        let tls = tls::server_config(&certificate, &key, Some(&text(&pki.ca))).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                accept(listener, tls, Bytes::from_static(body)).await
            })
        });
        told.recv().unwrap()
    }
}
