//! Kubernetes quantities (`500m`, `1.5Gi`, `2e3`) as exact numbers.
//!
//! The grammar is that of `k8s.io/apimachinery/pkg/api/resource`: a signed decimal number and
//! a suffix of powers of ten (`n u m k M G T P E`), of powers of two (`Ki … Ei`), or an exponent.
//! The API server keeps what people wrote, so `1Gi` and `1024Mi` must compare as equal here.

use std::cmp::Ordering;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A quantity in billionths of its unit: the finest that Kubernetes knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(i128);

/// Billionths in one.
const NANO: i128 = 1_000_000_000;
/// Digits after the point that are looked at; Kubernetes rounds up what lies beyond.
const SCALE: usize = 9;
/// The largest number of units: 2⁶³−1, as in Kubernetes.
const MOST: i128 = i64::MAX as i128 * NANO;

/// Text that is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a quantity such as 500m, 2 or 1Gi")]
pub struct NotAQuantity(pub String);

impl Amount {
    /// The amount that a Kubernetes quantity stands for.
    ///
    /// # Errors
    ///
    /// [`NotAQuantity`] when the text is not one, or beyond 2⁶³−1.
    pub fn of(quantity: &Quantity) -> Result<Self, NotAQuantity> {
        quantity.0.parse()
    }

    /// So many whole units.
    #[must_use]
    pub fn whole(units: i64) -> Self {
        Self(i128::from(units) * NANO)
    }

    /// Whole units, rounded up as Kubernetes does: bytes of memory and storage.
    #[must_use]
    pub fn units(self) -> i64 {
        i64::try_from(ceil(self.0, NANO)).unwrap_or(if self.0 < 0 { i64::MIN } else { i64::MAX })
    }

    /// Thousandths, rounded up: millicores of CPU.
    #[must_use]
    pub fn thousandths(self) -> i64 {
        i64::try_from(ceil(self.0, NANO / 1000)).unwrap_or(if self.0 < 0 { i64::MIN } else { i64::MAX })
    }
}

/// `a / b`, rounded towards plus infinity; `b` is positive.
fn ceil(a: i128, b: i128) -> i128 {
    a.div_euclid(b) + i128::from(a.rem_euclid(b) != 0)
}

impl std::str::FromStr for Amount {
    type Err = NotAQuantity;

    fn from_str(text: &str) -> Result<Self, NotAQuantity> {
        parse(text).ok_or_else(|| NotAQuantity(text.chars().take(40).collect()))
    }
}

fn parse(text: &str) -> Option<Amount> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let multiplied = multiply(number, scale(suffix)?)?;
    let nanos = if multiplied.cmp(&MOST) == Ordering::Greater { return None } else { multiplied };
    Some(Amount(if negative { -nanos } else { nanos }))
}

/// What a suffix multiplies by.
enum Scale {
    Ten(i32),
    Two(u32),
}

fn scale(suffix: &str) -> Option<Scale> {
    Some(match suffix {
        "n" => Scale::Ten(-9),
        "u" => Scale::Ten(-6),
        "m" => Scale::Ten(-3),
        "" => Scale::Ten(0),
        "k" => Scale::Ten(3),
        "M" => Scale::Ten(6),
        "G" => Scale::Ten(9),
        "T" => Scale::Ten(12),
        "P" => Scale::Ten(15),
        "E" => Scale::Ten(18),
        "Ki" => Scale::Two(10),
        "Mi" => Scale::Two(20),
        "Gi" => Scale::Two(30),
        "Ti" => Scale::Two(40),
        "Pi" => Scale::Two(50),
        "Ei" => Scale::Two(60),
        _ => Scale::Ten(exponent(suffix)?),
    })
}

/// The number after `e` or `E`, which is at most two digits for anything that fits.
fn exponent(suffix: &str) -> Option<i32> {
    let digits = suffix.strip_prefix(['e', 'E'])?;
    let bare = digits.strip_prefix(['-', '+']).unwrap_or(digits);
    let short = (1..=2).contains(&bare.len()) && bare.bytes().all(|b| b.is_ascii_digit());
    short.then(|| digits.parse().ok()).flatten()
}

/// `number` times the scale, in billionths, rounded up.
fn multiply(number: &str, scale: Scale) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let kept = fraction.get(..SCALE.min(fraction.len()))?;
    let lost = fraction.get(kept.len()..)?.bytes().any(|b| b != b'0');
    let digits: i128 = format!("0{whole}{kept:0<SCALE$}").parse().ok()?;
    let digits = digits.checked_add(i128::from(lost))?;
    match scale {
        Scale::Two(power) => digits.checked_mul(1_i128.checked_shl(power)?),
        Scale::Ten(power @ 0..) => digits.checked_mul(10_i128.checked_pow(power.unsigned_abs())?),
        Scale::Ten(power) => {
            Some(ceil(digits, 10_i128.checked_pow(power.unsigned_abs()).unwrap_or(i128::MAX)))
        }
    }
}

/// Bytes in the words of people and Kubernetes: `512Mi`, `1.5Gi`.
#[must_use]
pub fn words(bytes: i64) -> String {
    const NAMES: [(i64, &str); 4] = [(1 << 40, "Ti"), (1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
    let fits = NAMES.iter().find(|(size, _)| bytes >= *size);
    fits.map_or_else(|| bytes.to_string(), |(size, name)| tenths(bytes, *size, name))
}

fn tenths(bytes: i64, size: i64, name: &str) -> String {
    let (whole, tenth) = (bytes / size, (bytes % size) / (size / 10).max(1));
    if tenth == 0 || tenth > 9 { format!("{whole}{name}") } else { format!("{whole}.{tenth}{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("1Gi", 1 << 30)]
    #[case("1024Mi", 1 << 30)]
    #[case("1.5Gi", 3 << 29)]
    #[case(".5Ki", 512)]
    #[case("1.", 1)]
    #[case("128M", 128_000_000)]
    #[case("129e6", 129_000_000)]
    #[case("1E", 1_000_000_000_000_000_000)]
    #[case("1E3", 1000)]
    #[case("1e-3", 1)]
    #[case("0.1", 1)]
    #[case("+7", 7)]
    #[case("-1", -1)]
    #[case("-0.5", 0)]
    #[case("0.0000000001", 1)]
    #[case("9223372036854775807", i64::MAX)]
    fn whole_units_are_rounded_up(#[case] text: &str, #[case] units: i64) {
        assert_eq!(text.parse::<Amount>().unwrap().units(), units, "{text}");
    }

    #[rstest]
    #[case("250m", 250)]
    #[case("2", 2000)]
    #[case("0.1", 100)]
    #[case("1u", 1)]
    fn cores_are_thousandths(#[case] text: &str, #[case] milli: i64) {
        assert_eq!(text.parse::<Amount>().unwrap().thousandths(), milli);
    }

    #[rstest]
    #[case("")]
    #[case("-")]
    #[case(".")]
    #[case("Gi")]
    #[case("1 Gi")]
    #[case("1gi")]
    #[case("1K")]
    #[case("1.2.3")]
    #[case("1e")]
    #[case("1e+-3")]
    #[case("1e999")]
    #[case("0x10")]
    #[case("١")]
    #[case("9223372036854775808")]
    #[case("8Ei")]
    #[case("99999999999999999999999999999999999999999999")]
    fn nonsense_is_refused(#[case] text: &str) {
        assert_eq!(text.parse::<Amount>(), Err(NotAQuantity(text.chars().take(40).collect())));
    }

    #[rstest]
    #[case(1 << 30, "1Gi")]
    #[case(3 << 29, "1.5Gi")]
    #[case(512 << 20, "512Mi")]
    #[case(12, "12")]
    fn bytes_are_said_in_short(#[case] bytes: i64, #[case] said: &str) {
        assert_eq!(words(bytes), said);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,60}") {
            let _ = text.parse::<Amount>();
        }

        #[test]
        fn binary_suffixes_are_powers(n in 0_i64..1 << 20, power in 0_usize..4) {
            let suffix = ["", "Ki", "Mi", "Gi"][power];
            let amount: Amount = format!("{n}{suffix}").parse().unwrap();
            prop_assert_eq!(amount.units(), n << (10 * power));
        }

        #[test]
        fn order_is_that_of_the_numbers(a in 0_i64..1_000_000_000, b in 0_i64..1_000_000_000) {
            let (x, y): (Amount, Amount) = (format!("{a}m").parse().unwrap(), format!("{b}m").parse().unwrap());
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        }

        #[test]
        fn an_exponent_is_so_many_zeros(n in 0_i64..1000, e in 0_usize..12) {
            let zeros: Amount = format!("{n}{}", "0".repeat(e)).parse().unwrap();
            prop_assert_eq!(format!("{n}e{e}").parse::<Amount>().unwrap(), zeros);
        }
    }
}
