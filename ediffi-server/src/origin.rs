//! Requests that pages of other hosts make a browser send. They are refused: who runs the server on a machine of their own needs no
//! token, and every page that is open in the browser reaches that machine, too.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Refuses what a page of another host sends. Programs send no `Origin`.
pub(crate) async fn same_origin(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let cross_site = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    let foreign = headers.contains_key(ORIGIN) && origin(headers) != host(headers);
    // A browser that follows a link sends the first, and asks for a page.
    if foreign || (cross_site && request.method() != axum::http::Method::GET) {
        return told("requests of pages of other hosts are refused");
    }
    next.run(request).await
}

/// Refuses what is sent to another name than this machine's own: a name of a stranger may lead to it.
pub(crate) async fn local_host(request: Request, next: Next) -> Response {
    let named = host(request.headers()).map(|host| host.rsplit_once(':').map_or(host, |(name, _)| name));
    let local = |name: &str| {
        let address = name.trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    // The last colon of an address of the newer kind is no port.
    let whole = host(request.headers());
    if whole.is_some_and(local) || named.is_some_and(local) {
        return next.run(request).await;
    }
    told("without a token the server answers to localhost and its addresses alone")
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(HOST)?.to_str().ok()
}

/// Host and port of the page that sent a request.
fn origin(headers: &HeaderMap) -> Option<&str> {
    headers.get(ORIGIN)?.to_str().ok()?.split_once("://").map(|(_, host)| host)
}

fn told(message: &str) -> Response {
    let body = serde_json::json!({ "error": { "code": "forbidden", "message": message } });
    (StatusCode::FORBIDDEN, axum::Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    async fn status(local: bool, method: &str, headers: &[(&str, &str)]) -> u16 {
        let mut router = Router::new().route("/", get(async || "").post(async || "")).layer(from_fn(same_origin));
        if local {
            router = router.layer(from_fn(local_host));
        }
        let mut request = axum::http::Request::builder().method(method).uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn pages_of_other_hosts_are_refused() {
        let own = ("host", "127.0.0.1:8080");
        for (method, headers, expected) in [
            ("POST", vec![own], 200),
            ("POST", vec![own, ("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-origin")], 200),
            ("POST", vec![own, ("origin", "http://evil.example")], 403),
            ("POST", vec![own, ("origin", "null")], 403),
            ("POST", vec![own, ("sec-fetch-site", "cross-site")], 403),
            ("GET", vec![own, ("sec-fetch-site", "cross-site")], 200),
        ] {
            assert_eq!(status(false, method, &headers).await, expected, "{method} {headers:?}");
        }
    }

    #[tokio::test]
    async fn names_of_strangers_are_refused() {
        for (host, expected) in [
            ("localhost", 200),
            ("LOCALHOST:8080", 200),
            ("127.0.0.1:8080", 200),
            ("[::1]:8080", 200),
            ("[::1]", 200),
            ("evil.example:8080", 403),
            ("127.0.0.1.evil.example", 403),
            ("192.168.0.1:8080", 403),
        ] {
            assert_eq!(status(true, "GET", &[("host", host)]).await, expected, "{host}");
        }
        assert_eq!(status(true, "GET", &[]).await, 403);
    }
}
