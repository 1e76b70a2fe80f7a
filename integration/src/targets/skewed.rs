//! A store whose clock is off.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use time::format_description::well_known::Rfc2822;
use time::macros::format_description;
use time::{Duration, OffsetDateTime, PrimitiveDateTime};

use super::S3;
use crate::https::Https;

/// How far a request's time may be from that of S3: fifteen minutes, by its documentation of `RequestTimeTooSkewed`.
const ALLOWED: Duration = Duration::minutes(15);

/// Stands before a real store and is what it would be with a clock that is off: its answers carry another date, and
/// a signature that is too far from that is refused in S3's words. (The clock of a program that reads it without the
/// C library cannot be set off from outside.) Gone when dropped.
#[derive(Debug)]
pub struct Skewed {
    server: Https,
}

struct Behind {
    client: reqwest::Client,
    endpoint: String,
    off: Duration,
}

impl Skewed {
    /// Starts one at a free port of `host`, an address of this machine.
    pub async fn before(store: &S3, host: IpAddr, off: Duration) -> anyhow::Result<Self> {
        let ca = reqwest::Certificate::from_pem(store.ca().as_bytes())?;
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build()?;
        let behind = Arc::new(Behind { client, endpoint: store.endpoint(), off });
        let server = Https::serve(host, move |request| {
            let behind = Arc::clone(&behind);
            async move { behind.answer(request).await }
        });
        Ok(Self { server: server.await? })
    }

    /// The server that clients see.
    pub fn server(&self) -> &Https {
        &self.server
    }
}

impl Behind {
    async fn answer(&self, request: http::Request<Incoming>) -> anyhow::Result<http::Response<Full<Bytes>>> {
        let now = OffsetDateTime::now_utc() + self.off;
        let mut answer = if (signed_at(&request)? - now).abs() > ALLOWED {
            refusal()?
        } else {
            self.forward(request).await?
        };
        let date = now.format(&Rfc2822)?.replace("+0000", "GMT");
        answer.headers_mut().insert(DATE, date.parse()?);
        Ok(answer)
    }

    async fn forward(&self, request: http::Request<Incoming>) -> anyhow::Result<http::Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        let path = head.uri.path_and_query().context("no path")?;
        // With the `Host` that was signed.
        let asked =
            self.client.request(head.method, format!("{}{path}", self.endpoint)).headers(head.headers);
        let got = asked.body(body.collect().await?.to_bytes()).send().await?;
        let mut answer = http::Response::builder().status(got.status());
        for (name, value) in got.headers() {
            if ![CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name) {
                answer = answer.header(name, value);
            }
        }
        Ok(answer.body(Full::new(got.bytes().await?))?)
    }
}

fn signed_at(request: &http::Request<Incoming>) -> anyhow::Result<OffsetDateTime> {
    let text = request.headers().get("x-amz-date").context("a request without x-amz-date")?.to_str()?;
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    Ok(PrimitiveDateTime::parse(text, format)?.assume_utc())
}

fn refusal() -> anyhow::Result<http::Response<Full<Bytes>>> {
    let told = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>RequestTimeTooSkewed</Code><Message>The \
                difference between the request time and the server's time is too large.</Message></Error>";
    let answer = http::Response::builder().status(403).header("content-type", "application/xml");
    Ok(answer.body(Full::new(Bytes::from(told)))?)
}
