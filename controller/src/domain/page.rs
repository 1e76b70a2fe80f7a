//! Pages of a list: how long, where the next one begins.

use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use thiserror::Error;

use super::Fault;

/// How many items a page has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSize(u16);

impl PageSize {
    /// The most a caller may ask for.
    pub const MAX: u16 = 200;

    /// `wanted`, or 50 when nothing is.
    pub fn parse(wanted: Option<u64>) -> Result<Self, Fault> {
        match wanted {
            None => Ok(Self(50)),
            Some(n @ 1..=200) => Ok(Self(u16::try_from(n).unwrap_or(Self::MAX))),
            Some(_) => Err(Fault::new("limit", "out_of_range", "must be from 1 to 200")),
        }
    }

    /// The number of items.
    #[must_use]
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}

/// Where a page begins: after the item with this key. Opaque outside; the list's
/// name inside keeps a cursor of one list from being used on another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    list: String,
    key: String,
}

/// A cursor that this controller did not make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a cursor of this list; take `next` of the page before, unchanged")]
pub struct BadCursor;

impl Cursor {
    /// The cursor that follows the item `key` of `list`.
    pub fn after(list: &str, key: impl Into<String>) -> Self {
        Self { list: list.to_owned(), key: key.into() }
    }

    /// The key, when the cursor belongs to `list` and the key reads as a `K`.
    pub fn key_of<K: FromStr>(&self, list: &str) -> Result<K, BadCursor> {
        if self.list == list { self.key.parse().map_err(|_| BadCursor) } else { Err(BadCursor) }
    }

    /// The text for a caller.
    #[must_use]
    pub fn encode(&self) -> String {
        BASE64URL_NOPAD.encode(format!("1\n{}\n{}", self.list, self.key).as_bytes())
    }
}

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        if text.len() > 512 {
            return Err(BadCursor);
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| BadCursor)?;
        let inside = String::from_utf8(bytes).map_err(|_| BadCursor)?;
        let (list, key) = inside.strip_prefix("1\n").and_then(|r| r.split_once('\n')).ok_or(BadCursor)?;
        Ok(Self { list: list.to_owned(), key: key.to_owned() })
    }
}

/// One page, and where the next begins when there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// At most as many as were asked for.
    pub items: Vec<T>,
    /// Absent at the end of the list.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// The page of `size` items out of `found`, which holds one more when the list
    /// goes on; `key` is what an item is sorted by.
    pub fn cut(mut found: Vec<T>, size: PageSize, list: &str, key: impl Fn(&T) -> String) -> Self {
        let more = found.len() > size.get();
        found.truncate(size.get());
        let next = found.last().filter(|_| more).map(|last| Cursor::after(list, key(last)));
        Self { items: found, next }
    }

    /// The same page of other things.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(change).collect(), next: self.next }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_page_points_on_and_the_last_does_not() {
        let size = PageSize::parse(Some(2)).unwrap();
        let page = Page::cut(vec![1, 2, 3], size, "numbers", i32::to_string);
        assert_eq!(page.items, [1, 2]);
        assert_eq!(page.next.unwrap().key_of::<i32>("numbers"), Ok(2));
        assert_eq!(Page::cut(vec![1, 2], size, "numbers", i32::to_string).next, None);
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(PageSize::parse(None).unwrap().get(), 50);
        for bad in [0, 201, u64::MAX] {
            assert!(PageSize::parse(Some(bad)).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_cursor_survives_its_text(list in "[a-z-]{1,20}", key in "\\PC{0,60}") {
            let cursor = Cursor::after(&list, key);
            prop_assert_eq!(cursor.encode().parse::<Cursor>(), Ok(cursor.clone()));
            prop_assert_eq!(cursor.key_of::<String>("another list"), Err(BadCursor));
        }

        #[test]
        fn foreign_text_is_refused_without_harm(text in "\\PC{0,600}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.encode(), text);
            }
        }
    }
}
