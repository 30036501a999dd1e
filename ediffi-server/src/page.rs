//! The painting page: plain modules, compiled into the program and served with a policy that lets nothing else in.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::header::{REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

/// What the page may load: its own files, and pictures that it holds in memory.
pub(crate) const POLICY: &str = "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; object-src 'none'; \
    base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// A file of the page.
#[derive(Debug)]
struct Asset {
    content_type: &'static str,
    /// A tag that changes with the file.
    tag: HeaderValue,
    body: &'static [u8],
}

/// The files of `page/`, by name.
macro_rules! files {
    ($($name:literal),* $(,)?) => { [$(($name, include_bytes!(concat!("../page/", $name)).as_slice())),*] };
}

static ASSETS: LazyLock<BTreeMap<&'static str, Asset>> = LazyLock::new(|| {
    let files =
        FILES.iter().map(|&(name, body)| (name, Asset { content_type: content_type(name), tag: tag(body), body }));
    files.collect()
});

const FILES: [(&str, &[u8]); 34] = files![
    "api.js",
    "bindings.js",
    "board.js",
    "dom.js",
    "drawing.js",
    "files.js",
    "gallery.js",
    "history.js",
    "icon.svg",
    "index.html",
    "json.js",
    "keys.js",
    "layers.js",
    "main.js",
    "mask.js",
    "open.js",
    "options.js",
    "panes.js",
    "parts.css",
    "phrases.js",
    "plan.js",
    "problems.js",
    "prompt.js",
    "raster.js",
    "request.js",
    "seed.js",
    "settings.js",
    "sources.js",
    "style.css",
    "theme.js",
    "token.js",
    "toolbar.js",
    "tools.js",
    "viewer.js",
];

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.') {
        Some((_, "html")) => "text/html; charset=utf-8",
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

fn tag(body: &[u8]) -> HeaderValue {
    let digest: String = Sha256::digest(body).iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    // Hexadecimal digits in quotes are a header.
    HeaderValue::try_from(format!("\"{digest}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// The page at `/`, its files below `/assets/`.
pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let index = async |headers: HeaderMap| answer("index.html", &headers);
    let asset = async |Path(name): Path<String>, headers: HeaderMap| answer(&name, &headers);
    Router::new().route("/", get(index)).route("/assets/{name}", get(asset))
}

fn answer(name: &str, headers: &HeaderMap) -> Response {
    let Some(asset) = ASSETS.get(name) else {
        return (StatusCode::NOT_FOUND, "there is no such file\n").into_response();
    };
    let known = [
        (ETAG, asset.tag.clone()),
        // It is asked for anew each time, and sent only if it has changed.
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    if headers.get_all(IF_NONE_MATCH).iter().any(|tags| names(tags, &asset.tag)) {
        return (StatusCode::NOT_MODIFIED, known).into_response();
    }
    (known, [(CONTENT_TYPE, asset.content_type)], asset.body).into_response()
}

/// Whether a list of tags names this one. Weak tags are compared as strong ones.
fn names(tags: &HeaderValue, tag: &HeaderValue) -> bool {
    let Ok(tags) = tags.to_str() else { return false };
    tags.split(',').map(|each| each.trim().trim_start_matches("W/")).any(|each| each == "*" || tag == each)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn asked(path: &str, tags: Option<&str>) -> (StatusCode, HeaderMap, Vec<u8>) {
        let request = Request::builder().uri(path);
        let request = tags.map_or(Request::builder().uri(path), |tags| request.header(IF_NONE_MATCH, tags));
        let response = router::<()>().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        (head.status, head.headers, to_bytes(body, usize::MAX).await.unwrap().to_vec())
    }

    #[test]
    fn every_file_of_the_page_is_served_and_together_they_are_small() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("page");
        let there = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(there.collect::<BTreeSet<_>>(), ASSETS.keys().map(|name| (*name).to_owned()).collect());
        assert!(ASSETS.values().map(|asset| asset.body.len()).sum::<usize>() < 300_000);
        assert!(ASSETS.values().all(|asset| asset.body.iter().filter(|byte| **byte == b'\n').count() <= 400));
    }

    #[test]
    fn every_file_that_the_page_names_is_there() {
        let mut named = BTreeSet::new();
        for (name, body) in FILES {
            let text = std::str::from_utf8(body).unwrap();
            let parts = text.split('"').filter_map(|part| part.strip_prefix("/assets/").or(part.strip_prefix("./")));
            named.extend(parts.map(str::to_owned));
            assert!(
                !text.contains("https://") && !text.replace("http://www.w3.org/", "").contains("http://"),
                "{name}"
            );
        }
        assert!(named.len() > 30, "{named:?}");
        for name in named {
            assert!(ASSETS.contains_key(name.as_str()), "{name}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_known_is_not_sent_again() {
        let (status, headers, body) = asked("/", None).await;
        assert_eq!((status, &headers[CONTENT_TYPE]), (StatusCode::OK, &"text/html; charset=utf-8".parse().unwrap()));
        assert!(headers[CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("default-src 'self'; "));
        assert!(body.starts_with(b"<!doctype html>"));
        let tag = headers[ETAG].to_str().unwrap();
        for tags in [tag.to_owned(), format!("\"other\", W/{tag}"), "*".to_owned()] {
            let (status, headers, body) = asked("/", Some(&tags)).await;
            assert_eq!((status, body.len(), headers[ETAG].to_str().unwrap()), (StatusCode::NOT_MODIFIED, 0, tag));
        }
        assert_eq!(asked("/", Some("\"other\"")).await.0, StatusCode::OK);
        assert_ne!(asked("/assets/main.js", None).await.1[ETAG].to_str().unwrap(), tag);
    }

    #[tokio::test]
    async fn other_paths_are_not_found() {
        for path in ["/assets/absent.js", "/assets/..%2fsrc%2fpage.rs", "/assets/%2e%2e/src/page.rs", "/assets/"] {
            assert_eq!(asked(path, None).await.0, StatusCode::NOT_FOUND, "{path}");
        }
        assert_eq!(asked("/assets/icon.svg", None).await.1[CONTENT_TYPE], "image/svg+xml");
    }
}
