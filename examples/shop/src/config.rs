//! What the shop is told by its environment: `PORT`, `DATABASE_URL`, `DATABASE_READ_URL`, `ISLES_REGION`.

use std::fmt;

use tokio_postgres::Config as Url;

/// The checked environment.
#[derive(Clone)]
pub struct Config {
    /// The port on 127.0.0.1 to listen on.
    pub port: u16,
    /// Leads to the database that takes writes, wherever it is.
    pub database_url: Url,
    /// Leads to the nearest copy; the same as [`Self::database_url`] where none is given.
    pub database_read_url: Url,
    /// Shown on every page; `local` outside Isles.
    pub region: String,
}

/// A variable is missing or cannot be read. Never repeats the value: it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A variable without which there is nothing to do.
    #[error("the environment variable {0} is not set")]
    Missing(&'static str),
    /// Not a port.
    #[error("PORT is not a port number between 1 and 65535")]
    Port,
    /// Not a `postgres://` URL.
    #[error("{name} is not a PostgreSQL URL")]
    Url {
        /// Which variable.
        name: &'static str,
    },
}

impl Config {
    /// Reads the variables through `lookup`, so that only `main` touches the environment.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let port = lookup("PORT").ok_or(ConfigError::Missing("PORT"))?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(ConfigError::Port)?;
        let url = |name: &'static str, text: String| text.parse().map_err(|_| ConfigError::Url { name });
        let write = lookup("DATABASE_URL").ok_or(ConfigError::Missing("DATABASE_URL"))?;
        let database_url: Url = url("DATABASE_URL", write)?;
        let database_read_url = match lookup("DATABASE_READ_URL") {
            Some(text) => url("DATABASE_READ_URL", text)?,
            None => database_url.clone(),
        };
        let region = lookup("ISLES_REGION").filter(|region| !region.is_empty());
        Ok(Self {
            port,
            database_url,
            database_read_url,
            region: region.unwrap_or_else(|| "local".to_owned()),
        })
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("port", &self.port)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_lookup(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn reads_go_to_the_writer_where_no_read_url_is_given() {
        let config = read(&[("PORT", "8080"), ("DATABASE_URL", "postgres://a:b@127.0.0.1/shop")]).unwrap();
        assert_eq!(config.database_url, config.database_read_url);
        assert_eq!(config.region, "local");
    }

    #[test]
    fn a_wrong_url_is_named_and_not_repeated() {
        let error = read(&[("PORT", "8080"), ("DATABASE_URL", "mysql://root:secret@db")]).unwrap_err();
        assert_eq!(error.to_string(), "DATABASE_URL is not a PostgreSQL URL");
    }

    #[test]
    fn a_port_out_of_range_is_refused() {
        assert!(matches!(read(&[("PORT", "70000"), ("DATABASE_URL", "")]), Err(ConfigError::Port)));
    }
}
