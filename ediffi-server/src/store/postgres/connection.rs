//! One connection to the database, made again when it is lost.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use postgres::{Client, Config, NoTls};
use rustls::RootCertStore;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls;
use crate::store::StoreError;

/// After how long a silent network is taken for gone.
const SILENCE: Duration = Duration::from_secs(5);

/// A connection to the database.
pub(super) struct Connection {
    config: Config,
    encryption: Option<MakeRustlsConnect>,
    /// Taken when the connection is dropped.
    client: Mutex<Option<Client>>,
}

impl fmt::Debug for Connection {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("database", &self.config.get_dbname()).finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn open(parameters: &str) -> Result<Self, StoreError> {
        Self::open_trusting(parameters, tls::of_machine)
    }

    /// As [`open`](Self::open), with other certificates to trust than those of the machine.
    pub(super) fn open_trusting(parameters: &str, trusted: impl FnOnce() -> RootCertStore) -> Result<Self, StoreError> {
        let mut config: Config = parameters.parse().map_err(failed)?;
        config.application_name("ediffi").connect_timeout(SILENCE).tcp_user_timeout(SILENCE).keepalives_idle(SILENCE);
        let encryption = tls::encryption(&config, parameters, trusted)?;
        let client = apart(|| connect(&config, encryption.as_ref()))?;
        Ok(Self { config, encryption, client: Mutex::new(Some(client)) })
    }

    /// Asks the database. A connection that was lost before is made again first; what fails now is not asked twice.
    pub(super) fn with<T: Send>(
        &self,
        ask: impl FnOnce(&mut Client) -> Result<T, postgres::Error> + Send,
    ) -> Result<T, StoreError> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let client = &mut *client;
        apart(move || {
            let open = client.take_if(|client| !client.is_closed());
            let again = || connect(&self.config, self.encryption.as_ref());
            ask(client.insert(open.map_or_else(again, Ok)?))
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let client = self.client.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // Nothing is left to be told of the end of a connection.
        let _ = apart(move || {
            drop(client);
            Ok(())
        });
    }
}

fn connect(config: &Config, encryption: Option<&MakeRustlsConnect>) -> Result<Client, postgres::Error> {
    match encryption {
        Some(encryption) => config.connect(encryption.clone()),
        None => config.connect(NoTls),
    }
}

/// Asks on a thread of its own: the client has a runtime inside, and panics on a thread that belongs to another one.
fn apart<T: Send>(ask: impl FnOnce() -> Result<T, postgres::Error> + Send) -> Result<T, StoreError> {
    let asked = std::thread::scope(|scope| scope.spawn(ask).join());
    asked.map_err(|_| StoreError::Database("the client panicked".to_owned()))?.map_err(failed)
}

/// The words of the database, without those of a request.
fn failed(error: postgres::Error) -> StoreError {
    if let Some(error) = error.as_db_error() {
        return StoreError::Database(error.message().to_owned());
    }
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
    StoreError::Database(format!("{error}{}", cause.unwrap_or_default()))
}
