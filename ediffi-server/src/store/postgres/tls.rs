//! Encryption on the way to the database.

use std::sync::Arc;

use postgres::Config;
use postgres::config::SslMode;
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::StoreError;

/// What encrypts a connection, if its parameters ask for it: `sslmode=require`. The server's certificate is checked against `trusted`.
///
/// # Errors
/// `sslmode=prefer`, which would go on without encryption when somebody in between says so; no certificates to trust.
pub(super) fn encryption(
    config: &Config,
    parameters: &str,
    trusted: impl FnOnce() -> RootCertStore,
) -> Result<Option<MakeRustlsConnect>, StoreError> {
    if parameters.contains("sslmode=prefer") {
        return wrong("`sslmode=prefer` is neither encrypted nor not: `require` is, `disable` is not".to_owned());
    }
    if config.get_ssl_mode() != SslMode::Require {
        return Ok(None);
    }
    let trusted = trusted();
    if trusted.is_empty() {
        return wrong("this machine trusts no certificates: install them (Debian: ca-certificates), or name a file in SSL_CERT_FILE".to_owned());
    }
    let config =
        ClientConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions();
    let config = config.or_else(|error| wrong(error.to_string()))?;
    Ok(Some(MakeRustlsConnect::new(config.with_root_certificates(trusted).with_no_client_auth())))
}

fn wrong<T>(reason: String) -> Result<T, StoreError> {
    Err(StoreError::Database(reason))
}

/// What this machine trusts, or the file that the variable SSL_CERT_FILE names.
pub(super) fn of_machine() -> RootCertStore {
    let mut trusted = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in found.errors {
        tracing::warn!(%error, "certificates cannot be read");
    }
    trusted.add_parsable_certificates(found.certs);
    trusted
}
