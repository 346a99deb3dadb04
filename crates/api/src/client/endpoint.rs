//! Where an API is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use axum::http::uri::Authority;

use crate::error::ApiError;

/// Where an API is: `http://HOST:PORT`, `https://HOST:PORT`, both with a prefix of the path if need be,
/// `HOST:PORT` (without TLS), or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// TCP.
    Tcp {
        /// Host and port.
        authority: Authority,
        /// Whether TLS is spoken.
        tls: bool,
        /// What stands before `/v1` in every path, without a slash at its end.
        prefix: String,
    },
    /// Unix socket.
    Unix {
        /// The socket.
        path: PathBuf,
    },
}

impl Endpoint {
    /// Whether TLS is spoken.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tcp { tls: true, .. })
    }

    /// The same place with TLS. What is on this machine's socket stays as it is.
    pub fn with_tls(self) -> Self {
        match self {
            Self::Tcp { authority, prefix, .. } => Self::Tcp { authority, tls: true, prefix },
            unix @ Self::Unix { .. } => unix,
        }
    }

    /// URL of a path of the API.
    pub(super) fn url(&self, path: &str) -> String {
        match self {
            Self::Tcp { authority, tls, prefix } => {
                format!("{}://{authority}{prefix}{path}", if *tls { "https" } else { "http" })
            }
            Self::Unix { .. } => format!("http://localhost{path}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ApiError::ParseEndpoint(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(error()) } else { Ok(Self::Unix { path: path.into() }) };
        }
        let (tls, rest) = match text.split_once("://") {
            None => (false, text),
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return Err(error()),
        };
        let (authority, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let authority: Authority = authority.parse().map_err(|_| error())?;
        let plain = !prefix.contains(['?', '#', ' ', '%']);
        if authority.host().is_empty()
            || authority.port_u16().is_none()
            || authority.as_str().contains('@')
            || !plain
        {
            return Err(error());
        }
        Ok(Self::Tcp { authority, tls, prefix: prefix.trim_end_matches('/').to_owned() })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { .. } => f.write_str(&self.url("")),
            Self::Unix { path } => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_as_people_write_them() {
        for (text, shown) in [
            ("127.0.0.1:7080", "http://127.0.0.1:7080"),
            ("http://[::1]:7080/", "http://[::1]:7080"),
            ("https://brick-7:7080", "https://brick-7:7080"),
            ("http://sim:1/agents/b17", "http://sim:1/agents/b17"),
            ("unix:/run/agent.sock", "unix:/run/agent.sock"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), shown);
        }
        let secure = "a:1/x".parse::<Endpoint>().unwrap().with_tls();
        assert_eq!(secure.url("/v1/host"), "https://a:1/x/v1/host");
    }

    #[test]
    fn refuses_what_is_no_endpoint() {
        for text in ["", "unix:", "host", "ftp://a:1", "http://:1", "a:1?x", "u@a:1", "a:99999"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
