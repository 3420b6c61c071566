//! Who may come in: any page of the web can reach a port of this machine through its reader's
//! browser, so what a browser says of the page is looked at before anything else.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, HOST, ORIGIN};
use axum::http::{HeaderMap, Method, Uri};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::{BodyExt as _, Limited};
use mpreg_patterns::base::{Code, Refusal};

use super::Site;
use super::answer::{in_words, refused};
use crate::config::HttpConfig;

/// How much of a refused body is still read, and for how long: who is cut off while sending may
/// never read the refusal.
const REFUSED_BYTES: usize = 1 << 20;
const REFUSED: Duration = Duration::from_secs(5);

pub(super) async fn guard(State(site): State<Site>, request: Request, next: Next) -> Response {
    let most = site.body_bytes();
    let may_come = check(&site.http, request.method(), request.uri(), request.headers())
        .and_then(|()| fits(request.headers(), most));
    let (head, mut body) = request.into_parts();
    let taken = match may_come {
        Ok(()) => read(&mut body, most).await,
        Err(refusal) => Err(refusal),
    };
    match taken {
        // Whole, so that whoever refuses the request leaves nothing of it on the connection.
        Ok(taken) => in_words(next.run(Request::from_parts(head, taken.into())).await),
        Err(refusal) => {
            tokio::spawn(tokio::time::timeout(REFUSED, async move {
                let _ = read(&mut body, REFUSED_BYTES).await;
            }));
            refused(&refusal)
        }
    }
}

async fn read(body: &mut Body, most: usize) -> Result<Bytes, Refusal> {
    match Limited::new(body, most).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large(most)),
        Err(error) => Err(Refusal::new(Code::BadEncoding, format!("the body ended: {error}"))),
    }
}

fn check(
    http: &HttpConfig,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = uri.authority().map(|authority| authority.as_str()).or_else(|| text(HOST));
    let host = host.unwrap_or_default();
    let listed =
        |list: &[String], what: &str| list.iter().any(|one| one.eq_ignore_ascii_case(what));
    // A name that its owner makes lead here is how a page gets around the look at its origin.
    if !is_of_this_machine(name(host)) && !listed(&http.hosts, name(host)) {
        let message = format!("`{host}` is not listed in http.hosts of the broker's config");
        return Err(Refusal::field(Code::ForeignOrigin, "Host", message));
    }
    if let Some(origin) = text(ORIGIN) {
        let own = origin.split_once("://").is_some_and(|(_, of)| of.eq_ignore_ascii_case(host));
        if !own && !listed(&http.origins, origin) {
            let message =
                format!("`{origin}` is not listed in http.origins of the broker's config");
            return Err(Refusal::field(Code::ForeignOrigin, "Origin", message));
        }
    }
    if *method == Method::POST {
        let sent = text(axum::http::header::CONTENT_TYPE).unwrap_or_default();
        kind(sent).ok_or_else(|| {
            let message = "POST takes `application/json` or `application/octet-stream`";
            Refusal::field(Code::BadContentType, "Content-Type", message)
        })?;
    }
    Ok(())
}

/// Whether a body is as small as it must be, if its length is told: it need not be sent else.
fn fits(headers: &HeaderMap, most: usize) -> Result<(), Refusal> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if length.and_then(|length| length.parse::<usize>().ok()).is_some_and(|length| length > most) {
        return Err(too_large(most));
    }
    Ok(())
}

fn too_large(most: usize) -> Refusal {
    Refusal::new(Code::TooLarge, format!("a body has {most} bytes at most"))
}

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Bytes,
}

/// The kind of a body, by its content type.
pub(super) fn kind(content_type: &str) -> Option<Kind> {
    match content_type.split(';').next().unwrap_or_default().trim() {
        of if of.eq_ignore_ascii_case("application/json") => Some(Kind::Json),
        of if of.eq_ignore_ascii_case("application/octet-stream") => Some(Kind::Bytes),
        _ => None,
    }
}

/// The host without its port.
fn name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Whether it is an address, or this machine's own name, which nobody else can make lead here.
fn is_of_this_machine(name: &str) -> bool {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::curl("Host: localhost:7405", "in")]
    #[case::an_address("Host: 127.0.0.1:7405", "in")]
    #[case::of_the_sixth_kind("Host: [::1]:7405", "in")]
    #[case::another_address("Host: 10.1.2.3", "in")]
    #[case::a_listed_name("Host: broker.example:7405", "in")]
    #[case::a_name_that_leads_here("Host: evil.example:7405", "Host")]
    #[case::no_host("", "Host")]
    #[case::its_own_page("Host: localhost:7405|Origin: http://localhost:7405", "in")]
    #[case::a_listed_page("Host: localhost:7405|Origin: https://app.example", "in")]
    #[case::another_port("Host: localhost:7405|Origin: http://localhost:3000", "Origin")]
    #[case::another_page("Host: localhost:7405|Origin: https://evil.example", "Origin")]
    #[case::a_file("Host: localhost:7405|Origin: null", "Origin")]
    fn who_comes_in(#[case] headers: &str, #[case] told: &str) {
        let http = HttpConfig {
            hosts: vec!["broker.example".into()],
            origins: vec!["https://app.example".into()],
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers.split('|').filter_map(|line| line.split_once(": ")) {
            let name = if name == "Host" { HOST } else { ORIGIN };
            map.insert(name, HeaderValue::from_str(value).unwrap());
        }
        let found = check(&http, &Method::GET, &Uri::from_static("/health"), &map);
        match found {
            Ok(()) => assert_eq!(told, "in"),
            Err(refusal) => assert_eq!(refusal.field.as_deref(), Some(told)),
        }
    }

    #[rstest]
    #[case("application/json", Some(Kind::Json))]
    #[case("Application/JSON; charset=utf-8", Some(Kind::Json))]
    #[case("application/octet-stream", Some(Kind::Bytes))]
    #[case("text/plain", None)]
    #[case("application/x-www-form-urlencoded", None)]
    #[case("", None)]
    fn what_a_body_is(#[case] content_type: &str, #[case] kind: Option<Kind>) {
        assert_eq!(super::kind(content_type), kind);
    }
}
