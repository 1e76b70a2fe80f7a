//! Headers between `http` and the wire.

use culvert_proto::tunnel::v1 as proto;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::WireError;

/// Headers that speak of one HTTP/1.1 connection and mean nothing on another.
const HOP_BY_HOP: [&str; 6] = [
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
];

/// The headers for the wire. Those of one connection stay behind, except that
/// `Connection` and `Upgrade` pass when the message asks for or grants an upgrade.
pub(crate) fn headers_to_wire(map: &HeaderMap, upgrade: bool) -> Vec<proto::Header> {
    map.iter()
        .filter(|(name, _)| upgrade && is_upgrade(name) || !is_upgrade(name) && !is_hop(name))
        .map(|(name, value)| proto::Header {
            name: name.as_str().to_owned(),
            value: bytes::Bytes::copy_from_slice(value.as_bytes()),
        })
        .collect()
}

fn is_upgrade(name: &HeaderName) -> bool {
    *name == header::CONNECTION || *name == header::UPGRADE
}

fn is_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(&name.as_str())
}

/// The headers from the wire.
pub(crate) fn headers_from_wire(headers: Vec<proto::Header>) -> Result<HeaderMap, WireError> {
    let mut map = HeaderMap::try_with_capacity(headers.len()).map_err(|_| WireError::Malformed)?;
    for header in headers {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| WireError::Malformed)?;
        let value = HeaderValue::from_maybe_shared(header.value).map_err(|_| WireError::Malformed)?;
        map.try_append(name, value).map_err(|_| WireError::Malformed)?;
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_one_connection_stay_behind() {
        let mut map = HeaderMap::new();
        for (name, value) in
            [("a", "1"), ("a", "2"), ("connection", "upgrade"), ("upgrade", "spdy"), ("te", "x")]
        {
            map.append(name, HeaderValue::from_static(value));
        }
        let names = |upgrade| -> Vec<String> {
            headers_to_wire(&map, upgrade).into_iter().map(|header| header.name).collect()
        };
        assert_eq!(names(false), ["a", "a"]);
        assert_eq!(names(true), ["a", "a", "connection", "upgrade"]);
    }

    #[test]
    fn a_value_with_a_line_break_is_refused() {
        let bad = proto::Header { name: "a".into(), value: bytes::Bytes::from_static(b"1\r\nb: 2") };
        assert_eq!(headers_from_wire(vec![bad]).unwrap_err(), WireError::Malformed);
    }
}
