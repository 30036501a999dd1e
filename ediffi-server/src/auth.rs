//! Who a request comes from.

use std::borrow::Cow;
use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Request};
use axum::http::header::AUTHORIZATION;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::refusal::Refusal;

/// Who a request comes from: clients take turns in the queue, and see their own jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client(pub(crate) String);

/// The tokens that are accepted, each with the name of its client. Without any, everybody is let in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tokens(Vec<(String, [u8; 32])>);

impl Tokens {
    pub(crate) fn new<'a>(named: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(named.into_iter().map(|(name, token)| (name.to_owned(), digest(token.as_bytes()))).collect())
    }

    pub(crate) fn are_needed(&self) -> bool {
        !self.0.is_empty()
    }

    /// Who has this token. The time does not tell how much of it is right.
    fn client(&self, token: &[u8]) -> Option<&str> {
        let sent = digest(token);
        let mut found = None;
        for (name, expected) in &self.0 {
            let same: Choice = expected.ct_eq(&sent);
            found = if bool::from(same) { Some(name.as_str()) } else { found };
        }
        found
    }

    /// The client of a request: that of its token; where none is needed, that of its address.
    pub(crate) fn of(&self, request: &Request) -> Result<Client, Refusal> {
        if !self.are_needed() {
            let address = request.extensions().get::<ConnectInfo<SocketAddr>>();
            let address = address.map_or_else(|| "unknown".to_owned(), |ConnectInfo(address)| address.ip().to_string());
            return Ok(Client(address));
        }
        let header = request.headers().get(AUTHORIZATION).ok_or(Refusal::Unauthorized)?.as_bytes();
        let token = token(header).ok_or(Refusal::Unauthorized)?;
        self.client(&token).map(|name| Client(name.to_owned())).ok_or(Refusal::Unauthorized)
    }
}

/// The token of `Bearer TOKEN`, or of `Basic`, where it is the password of whatever user: clients of A1111 send it so.
fn token(header: &[u8]) -> Option<Cow<'_, [u8]>> {
    let place = header.iter().position(|byte| *byte == b' ')?;
    let (scheme, sent) = header.split_at_checked(place)?;
    let sent = sent.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(Cow::Borrowed(sent));
    }
    let pair = STANDARD.decode(sent).ok().filter(|_| scheme.eq_ignore_ascii_case(b"basic"))?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    pair.get(colon + 1..).map(|password| Cow::Owned(password.to_vec()))
}

/// Of one length, whatever was sent.
fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn asked(header: Option<&str>) -> Request {
        let request = axum::http::Request::builder();
        header
            .map_or(request, |header| axum::http::Request::builder().header("authorization", header))
            .body(Body::empty())
            .unwrap()
    }

    #[test]
    fn a_token_names_its_client() {
        let tokens = Tokens::new([("anna", "secret"), ("ben", "other")]);
        let client = |header: Option<&str>| tokens.of(&asked(header)).ok().map(|Client(name)| name);
        assert_eq!(client(Some("Bearer secret")).as_deref(), Some("anna"));
        assert_eq!(client(Some("bearer  other ")).as_deref(), Some("ben"));
        let basic = |pair: &str| client(Some(&format!("Basic {}", STANDARD.encode(pair))));
        assert_eq!(basic("whoever:secret").as_deref(), Some("anna"));
        assert_eq!((basic("secret"), basic("secret:"), basic("anna:secre")), (None, None, None));
        for wrong in [
            None,
            Some("Bearer secre"),
            Some("Bearer secrets"),
            Some("Bearer "),
            Some("Basic secret"),
            Some("Digest secret"),
            Some("secret"),
            Some("é"),
        ] {
            assert_eq!(client(wrong), None, "{wrong:?}");
        }
        assert_eq!(Tokens::default().of(&asked(None)).unwrap(), Client("unknown".to_owned()));
    }
}
