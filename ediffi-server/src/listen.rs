//! Connections: as many as come, each with its patience, and an end that waits for those that are served.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Extension;
use axum::extract::ConnectInfo;
use axum::middleware::from_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

use crate::origin;
use crate::server::{Server, ServerError};

/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(15);

impl Server {
    /// Answers connections until `stop` is ready; then no more jobs are taken, those that run have the time of
    /// [`ServerBuilder::grace`](crate::ServerBuilder::grace) to finish, and those that wait are kept where the queue is on disk.
    ///
    /// # Errors
    /// [`ServerError::Open`] without a token on an address that other machines can reach; [`ServerError::Listen`];
    /// [`ServerError::Store`].
    pub async fn serve(&self, listener: TcpListener, stop: impl Future<Output = ()>) -> Result<(), ServerError> {
        let address = listener.local_addr().map_err(ServerError::Listen)?;
        if !address.ip().is_loopback() && !self.service.tokens.are_needed() {
            return Err(ServerError::Open(address));
        }
        let (mut router, connections) = (self.router(), GracefulShutdown::new());
        if !self.service.tokens.are_needed() {
            router = router.layer(from_fn(origin::local_host));
        }
        // Of one version, so that the clock runs from the first byte on, and before it.
        let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut stop => break,
            };
            let (stream, client) = match accepted {
                Ok(accepted) => accepted,
                // Of this connection, or for want of files: the next may do.
                Err(error) => {
                    tracing::warn!(%error, "a connection is lost");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // Small answers and events are not held back.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection");
            }
            let router = router.clone().layer(Extension(ConnectInfo::<SocketAddr>(client)));
            let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
            let connection = connections.watch(connection.into_owned());
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%client, error, "a connection ended");
                }
            });
        }
        drop(listener);
        // Those who wait for a job get its pictures, or are told that it will not be drawn.
        let server = self.clone();
        let jobs = tokio::task::spawn_blocking(move || server.shutdown(server.grace));
        let answers = tokio::time::timeout(self.grace + HEAD, connections.shutdown());
        let (jobs, answers) = tokio::join!(jobs, answers);
        if answers.is_err() {
            tracing::warn!("connections are cut");
        }
        jobs.map_err(|error| ServerError::Listen(std::io::Error::other(error)))?.map_err(ServerError::from)
    }
}
