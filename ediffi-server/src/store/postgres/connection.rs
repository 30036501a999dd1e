//! One connection to the database, made again when it is lost.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use postgres::{Client, Config, NoTls};

use crate::store::StoreError;

/// A connection to the database.
pub(super) struct Connection {
    config: Config,
    client: Mutex<Client>,
}

impl fmt::Debug for Connection {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("database", &self.config.get_dbname()).finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn open(parameters: &str) -> Result<Self, StoreError> {
        let config: Config = parameters.parse().map_err(failed)?;
        let client = Mutex::new(config.connect(NoTls).map_err(failed)?);
        Ok(Self { config, client })
    }

    /// Asks the database. A connection that was lost before is made again first; what fails now is not asked twice.
    pub(super) fn with<T>(&self, ask: impl FnOnce(&mut Client) -> Result<T, postgres::Error>) -> Result<T, StoreError> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if client.is_closed() {
            *client = self.config.connect(NoTls).map_err(failed)?;
        }
        ask(&mut client).map_err(failed)
    }
}

/// The words of the database, without those of a request.
fn failed(error: postgres::Error) -> StoreError {
    if let Some(error) = error.as_db_error() {
        return StoreError::Database(error.message().to_owned());
    }
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
    StoreError::Database(format!("{error}{}", cause.unwrap_or_default()))
}
