//! The name of a call: unguessable, made by the controller.

use std::fmt;

use bytes::Bytes;

/// 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CallId([u8; 16]);

impl CallId {
    /// A new one from the system's randomness.
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    /// Reads 32 lower-case hexadecimal digits.
    pub(crate) fn from_hex(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; 16];
        let (pairs, rest) = text.as_chunks::<2>();
        if pairs.len() != bytes.len() || !rest.is_empty() {
            return None;
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(bytes))
    }

    pub(crate) fn hex(self) -> [u8; 32] {
        let mut text = [0; 32];
        let (pairs, _) = text.as_chunks_mut::<2>();
        for (pair, byte) in pairs.iter_mut().zip(self.0) {
            *pair = [letter(byte >> 4), letter(byte & 15)];
        }
        text
    }
}

fn digit(letter: u8) -> Option<u8> {
    match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'a'..=b'f' => Some(letter - b'a' + 10),
        _ => None,
    }
}

fn letter(digit: u8) -> u8 {
    if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Half of it: enough for a log, too little to answer in its name.
        f.write_str(&String::from_utf8_lossy(self.hex().get(..16).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_and_back() {
        let id = CallId::random().unwrap();
        assert_eq!(CallId::from_hex(&id.hex()), Some(id));
        assert_eq!(CallId::from_bytes(&id.to_bytes()), Some(id));
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        let upper = CallId::random().unwrap().hex().to_ascii_uppercase();
        let bad: [&[u8]; 5] = [b"", b"00", &[b'0'; 31], &[b'0'; 33], &[b'g'; 32]];
        assert!(bad.iter().all(|text| CallId::from_hex(text).is_none()));
        assert!(upper.iter().all(u8::is_ascii_digit) || CallId::from_hex(&upper).is_none());
        assert!(CallId::from_bytes(&[0; 15]).is_none());
    }
}
