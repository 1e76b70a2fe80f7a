//! That a stream opens as it was, and in no other way.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// The shortest chunk, so that small streams have several.
const LOG2: u8 = 16;
const CHUNK: usize = 1 << LOG2;
const SEALED: usize = CHUNK + TAG_LEN;
const CONTEXT: &[u8] = b"base.tar.zst";

fn key() -> BackupKey {
    BackupKey::parse(b"WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo=").unwrap()
}

fn seal(key: &BackupKey, plaintext: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut sealer = Sealer::begin_with(key, CONTEXT, [7; SALT_LEN], LOG2, &mut out).unwrap();
    sealer.update(plaintext, &mut out).unwrap();
    sealer.finish(&mut out).unwrap();
    out
}

fn open_as(key: &BackupKey, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, StreamError> {
    let mut out = Vec::new();
    let mut opener = Opener::begin(key, context);
    opener.update(sealed, &mut out)?;
    opener.finish(&mut out)?;
    Ok(out)
}

fn open(sealed: &[u8]) -> Result<Vec<u8>, StreamError> {
    open_as(&key(), CONTEXT, sealed)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 7) as u8).collect()
}

#[test]
fn lengths_about_the_end_of_a_chunk_all_open() {
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1] {
        let sealed = seal(&key(), &pattern(length));
        assert_eq!(sealed.len(), HEADER_LEN + length + TAG_LEN * length.div_ceil(CHUNK).max(1));
        assert_eq!(open(&sealed).unwrap(), pattern(length), "{length} bytes");
    }
}

#[test]
fn every_cut_is_noticed() {
    let sealed = seal(&key(), &pattern(2 * CHUNK + 100));
    let ends = [HEADER_LEN, HEADER_LEN + SEALED, HEADER_LEN + 2 * SEALED];
    for cut in (0..sealed.len()).step_by(4099).chain(ends).chain(ends.map(|end| end + 1)) {
        let error = open(&sealed[..cut]).unwrap_err();
        assert!(
            matches!(error, StreamError::Truncated { .. } | StreamError::Forged { .. }),
            "cut at {cut}: {error}"
        );
    }
    // At the end of a chunk, it is known for what it is.
    assert_eq!(open(&sealed[..HEADER_LEN + SEALED]), Err(StreamError::Truncated { chunk: 1 }));
    assert_eq!(open(&[]), Err(StreamError::Truncated { chunk: 0 }));
}

#[test]
fn chunks_do_not_open_in_another_place() {
    let sealed = seal(&key(), &pattern(4 * CHUNK));
    let (header, body) = sealed.split_at(HEADER_LEN);
    let chunks: Vec<&[u8]> = body.chunks(SEALED).collect();
    for (order, wrong) in [
        (vec![1, 0, 2, 3], 0),
        (vec![0, 0, 1, 2, 3], 1),
        (vec![0, 2, 3], 1),
        (vec![0, 1, 2, 3, 3], 3),
        (vec![0, 1, 3], 2),
    ] {
        let mut changed = header.to_vec();
        order.iter().for_each(|at| changed.extend_from_slice(chunks[*at]));
        assert_eq!(open(&changed), Err(StreamError::Forged { chunk: wrong }), "{order:?}");
    }
}

#[test]
fn a_chunk_of_another_stream_does_not_open() {
    let mut other = Vec::new();
    let mut sealer = Sealer::begin_with(&key(), CONTEXT, [8; SALT_LEN], LOG2, &mut other).unwrap();
    sealer.update(&pattern(2 * CHUNK), &mut other).unwrap();
    sealer.finish(&mut other).unwrap();
    let mut sealed = seal(&key(), &pattern(2 * CHUNK));
    sealed.truncate(HEADER_LEN + SEALED);
    sealed.extend_from_slice(&other[HEADER_LEN + SEALED..]);
    assert_eq!(open(&sealed), Err(StreamError::Forged { chunk: 1 }));
}

#[test]
fn a_stream_under_another_name_does_not_open() {
    let sealed = seal(&key(), b"secret");
    assert_eq!(open_as(&key(), b"other.tar.zst", &sealed), Err(StreamError::Forged { chunk: 0 }));
}

#[test]
fn another_key_is_told_from_a_forgery() {
    let (sealed, other) = (seal(&key(), b"secret"), BackupKey::generate().unwrap());
    assert_eq!(
        open_as(&other, CONTEXT, &sealed),
        Err(StreamError::OtherKey { needs: key().id(), this: other.id() })
    );
}

#[test]
fn what_is_no_stream_is_refused() {
    let mut sealed = seal(&key(), b"secret");
    for (at, to) in [(0, b'X'), (4, 9), (5, 15), (5, 21)] {
        let mut changed = sealed.clone();
        changed[at] = to;
        assert_eq!(open(&changed), Err(StreamError::Format), "byte {at} is {to}");
    }
    // A permitted length of chunks, but not that of this stream.
    sealed[5] = 17;
    assert_eq!(open(&sealed), Err(StreamError::Forged { chunk: 0 }));
}

#[test]
fn a_counter_does_not_wrap() {
    let mut out = Vec::new();
    let mut sealer = Sealer::begin(&key(), CONTEXT, &mut out).unwrap();
    sealer.chunks.next = u32::MAX;
    assert_eq!(sealer.finish(&mut out), Err(StreamError::TooLong));
}

#[test]
fn keys_are_read_as_they_stand_in_a_secret() {
    assert_eq!(
        BackupKey::parse(format!("{}\n", key().expose().as_str()).as_bytes()).unwrap().id(),
        key().id()
    );
    for text in ["", "WlpaWlo=", "not base64!", "WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWg=="] {
        assert_eq!(BackupKey::parse(text.as_bytes()).unwrap_err(), KeyFormatError, "{text:?}");
    }
    assert!(!format!("{:?}", key()).contains(key().expose().as_str()));
}

#[test]
fn a_proof_is_bound_to_key_purpose_and_bytes() {
    let proof = key().authenticate("manifest", b"bytes");
    assert!(proof.matches(format!("{proof}\n").as_bytes()));
    for other in [
        key().authenticate("other", b"bytes"),
        key().authenticate("manifest", b"byteS"),
        BackupKey::generate().unwrap().authenticate("manifest", b"bytes"),
    ] {
        assert!(!proof.matches(other.to_string().as_bytes()));
    }
    assert!(!proof.matches(b""));
}

/// Made by another program (Node's `crypto`) from the description above, so that a change of the format
/// cannot pass unseen: backups that an older version made must stay readable.
#[test]
fn a_stream_of_format_one_still_opens() {
    let sealed = data_encoding::HEXLOWER.decode(FORMAT_ONE.as_bytes()).unwrap();
    assert_eq!(open(&sealed).unwrap(), b"a backup of format one");
    assert_eq!(seal(&key(), b"a backup of format one"), sealed);
    assert_eq!(key().id().to_string(), KEY_ID);
    assert_eq!(key().authenticate("manifest", b"{}").to_string(), MAC);
}

const KEY_ID: &str = "53723729df5e12ce";
const MAC: &str = "7468682e8192218db9fa9b3e83387b8b8a78dd0e4c528f46d7b7742c1a248963";
const FORMAT_ONE: &str = "43565331011053723729df5e12ce07070707070707070707070707070707070707070707070707070707070707075c400344ec629858ef071d7d528f14cf64c3630b43f4eca2a413e7243c2c7c89d83f35c2c35d";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_stream_opens_however_it_is_cut(
        length in 0..3 * CHUNK, writes in vec(1..2 * CHUNK, 1..6), reads in vec(1..2 * CHUNK, 1..6),
    ) {
        let (key, plaintext) = (key(), pattern(length));
        let mut sealed = Vec::new();
        let mut sealer = Sealer::begin_with(&key, CONTEXT, [7; SALT_LEN], LOG2, &mut sealed).unwrap();
        let mut rest = plaintext.as_slice();
        for write in writes {
            let (now, later) = rest.split_at(write.min(rest.len()));
            sealer.update(now, &mut sealed).unwrap();
            rest = later;
        }
        sealer.update(rest, &mut sealed).unwrap();
        sealer.finish(&mut sealed).unwrap();

        let (mut opener, mut opened, mut rest) = (Opener::begin(&key, CONTEXT), Vec::new(), sealed.as_slice());
        for read in reads {
            let (now, later) = rest.split_at(read.min(rest.len()));
            opener.update(now, &mut opened).unwrap();
            rest = later;
        }
        opener.update(rest, &mut opened).unwrap();
        opener.finish(&mut opened).unwrap();
        prop_assert_eq!(opened, plaintext);
    }

    #[test]
    fn a_changed_bit_is_noticed(length in 0..2 * CHUNK, at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let mut sealed = seal(&key(), &pattern(length));
        let at = at.index(sealed.len());
        sealed[at] ^= 1 << bit;
        prop_assert!(open(&sealed).is_err());
    }

    #[test]
    fn garbage_is_refused_calmly(bytes in vec(any::<u8>(), 0..500)) {
        prop_assert!(open(&bytes).is_err());
    }
}
