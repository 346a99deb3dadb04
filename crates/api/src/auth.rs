//! Who asks, and whether they may.
//!
//! As on the memory server: a token, certificates on both sides, or both; without either only this machine may ask.
//! Everything here judges and does nothing; [`crate::serve`] applies it to each request.

use std::fmt;
use std::net::IpAddr;

use axum::http::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use ring::hmac;
use rustls::pki_types::CertificateDer;

use crate::error::ApiError;
use crate::problem::{Problem, ProblemType};

/// Shortest token: 16 bytes cannot be guessed.
pub const TOKEN_BYTES_MIN: usize = 16;

/// Where a request comes from, as the connection tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A Unix socket, which only those can open whom its file mode lets.
    Unix,
    /// TCP.
    Ip(IpAddr),
    /// TLS, with the name in the certificate that our authority signed.
    Certificate(String),
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Somebody on this machine.
    Local,
    /// Somebody who knows the token.
    Token,
    /// Somebody with a certificate, by its name.
    Certificate(String),
    /// Somebody on the network, of whom nothing is known (`--insecure`).
    Anybody,
}

impl Identity {
    /// Who sent the request; [`Guard`] has put it there.
    pub(crate) fn of(parts: &Parts) -> Self {
        parts.extensions.get().cloned().unwrap_or(Self::Local)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Token => f.write_str("token"),
            Self::Certificate(name) => f.write_str(name),
            Self::Anybody => f.write_str("anybody"),
        }
    }
}

/// The name in a client's certificate: its first DNS name.
pub(crate) fn certificate_name(certificate: &CertificateDer<'_>) -> String {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok();
    let name = parsed.and_then(|parsed| parsed.valid_dns_names().next().map(str::to_owned));
    name.unwrap_or_else(|| "certificate".to_owned())
}

/// A token, kept as its HMAC only.
#[derive(Clone)]
pub struct Token(hmac::Tag);

impl Token {
    /// Takes over the content of a token file; white space at its end does not count.
    pub fn new(text: &str) -> Result<Self, ApiError> {
        let text = text.trim_end();
        if text.len() < TOKEN_BYTES_MIN {
            return Err(ApiError::ShortToken(text.len()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ApiError::TokenCharacters);
        }
        Ok(Self(hmac::sign(&Self::key(text), Self::MESSAGE)))
    }

    /// Whether `text` is the token. Takes as long for a wrong one as for the right one.
    pub fn is(&self, text: &str) -> bool {
        hmac::verify(&Self::key(text), Self::MESSAGE, self.0.as_ref()).is_ok()
    }

    const MESSAGE: &[u8] = b"rackmem api token";

    fn key(text: &str) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Who is let in.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// What everybody has to know, where there is one.
    pub token: Option<Token>,
}

impl Guard {
    /// Who asks, or why they may not.
    pub fn judge(&self, peer: &Peer, headers: &HeaderMap) -> Result<Identity, Problem> {
        refuse_foreign_pages(headers)?;
        let identity = match (peer, &self.token) {
            (_, Some(token)) => {
                check_bearer(token, headers)?;
                match peer {
                    Peer::Certificate(name) => Identity::Certificate(name.clone()),
                    Peer::Unix | Peer::Ip(_) => Identity::Token,
                }
            }
            (Peer::Certificate(name), None) => Identity::Certificate(name.clone()),
            (Peer::Unix, None) => Identity::Local,
            (Peer::Ip(address), None) if address.to_canonical().is_loopback() => {
                refuse_public_names(headers)?;
                Identity::Local
            }
            (Peer::Ip(_), None) => Identity::Anybody,
        };
        Ok(identity)
    }
}

fn check_bearer(token: &Token, headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |detail: &str| Err(Problem::new(ProblemType::Unauthenticated, detail));
    let Some(value) = headers.get(AUTHORIZATION) else {
        return refuse("a token is required: give --token-file, or send 'Authorization: Bearer TOKEN'");
    };
    let text = value.to_str().unwrap_or_default();
    match text.split_once(' ') {
        Some((scheme, text)) if scheme.eq_ignore_ascii_case("bearer") && token.is(text.trim()) => Ok(()),
        _ => refuse("the token is wrong: give the --token-file that the server was started with"),
    }
}

/// A page of another site, in a browser of this machine, may open a WebSocket to anywhere; its `Origin` tells.
fn refuse_foreign_pages(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let site = origin.split_once("://").map_or(origin, |(_, site)| site);
    if host(headers).is_some_and(|host| host.as_str() == site) {
        return Ok(());
    }
    Err(Problem::new(ProblemType::Forbidden, format!("pages of '{origin}' may not ask this server")))
}

/// A page may also have its own site's name lead to this machine's loopback address; `Host` is then a public name.
fn refuse_public_names(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(host) = host(headers) else { return Ok(()) };
    let name = host.host();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    if address || !name.contains('.') {
        return Ok(());
    }
    Err(Problem::new(
        ProblemType::Forbidden,
        format!(
            "without a token only this machine may ask, and '{name}' may be a name of others: ask 127.0.0.1"
        ),
    ))
}

fn host(headers: &HeaderMap) -> Option<Authority> {
    headers.get(HOST)?.to_str().ok()?.parse().ok()
}

/// Whether `address` may be listened on: everybody there is known (`guarded`), or only this machine reaches it.
pub fn check_exposed(address: IpAddr, guarded: bool) -> Result<(), ApiError> {
    if guarded || address.to_canonical().is_loopback() { Ok(()) } else { Err(ApiError::Exposed(address)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn loopback() -> Peer {
        Peer::Ip("::ffff:127.0.0.1".parse().unwrap())
    }

    #[test]
    fn the_token_is_asked_of_everybody() {
        let guard = Guard { token: Some(Token::new(&format!("{TOKEN}\n")).unwrap()) };
        for peer in [Peer::Unix, loopback(), Peer::Certificate("c1".into())] {
            let problem = guard.judge(&peer, &headers(&[])).unwrap_err();
            assert_eq!((problem.status, problem.detail.contains("--token-file")), (401, true));
            for wrong in ["Bearer 0123456789abcdeg", "Bearer ", "Bearer", "Basic 0123456789abcdef", TOKEN] {
                assert!(guard.judge(&peer, &headers(&[("authorization", wrong)])).is_err(), "{wrong}");
            }
        }
        let right = headers(&[("authorization", "bearer 0123456789abcdef")]);
        assert_eq!(guard.judge(&loopback(), &right), Ok(Identity::Token));
        assert_eq!(
            guard.judge(&Peer::Certificate("c1".into()), &right),
            Ok(Identity::Certificate("c1".into()))
        );
    }

    #[test]
    fn tokens_that_can_be_guessed_or_not_be_sent_are_refused() {
        assert!(matches!(Token::new("short\n"), Err(ApiError::ShortToken(5))));
        assert!(matches!(Token::new("0123456789 abcdef"), Err(ApiError::TokenCharacters)));
    }

    #[test]
    fn pages_in_a_browser_are_not_this_machine() {
        let guard = Guard::default();
        let judge =
            |pairs: &[(&'static str, &str)]| guard.judge(&loopback(), &headers(pairs)).map_err(|p| p.status);
        assert_eq!(judge(&[("host", "127.0.0.1:7080")]), Ok(Identity::Local));
        assert_eq!(judge(&[("host", "[::1]:7080")]), Ok(Identity::Local));
        assert_eq!(
            judge(&[("host", "localhost:7080"), ("origin", "http://localhost:7080")]),
            Ok(Identity::Local)
        );
        assert_eq!(judge(&[("host", "127.0.0.1:7080"), ("origin", "https://evil.example")]), Err(403));
        assert_eq!(judge(&[("host", "127.0.0.1:7080"), ("origin", "null")]), Err(403));
        assert_eq!(judge(&[("host", "evil.example"), ("origin", "http://evil.example")]), Err(403));
    }

    #[test]
    fn the_network_is_open_only_to_who_is_guarded() {
        let everywhere = "0.0.0.0".parse().unwrap();
        let error = check_exposed(everywhere, false).unwrap_err().to_string();
        for way in ["--tls-cert", "--token-file", "--tokens", "--insecure"] {
            assert!(error.contains(way), "{error}");
        }
        assert!(check_exposed(everywhere, true).is_ok());
        assert!(check_exposed("127.0.0.1".parse().unwrap(), false).is_ok());
    }
}
