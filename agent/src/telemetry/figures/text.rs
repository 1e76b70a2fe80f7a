//! Reads the text format of Prometheus (version 0.0.4), as far as samples are concerned.
use culvert_proto::telemetry::v1 as wire;

/// The most samples of one program.
const SAMPLES_MAX: usize = 128;
/// The longest name of a metric or a label, and the longest value of a label, bytes.
const NAME_MAX: usize = 100;
const VALUE_MAX: usize = 128;
/// The most labels of a sample.
const LABELS_MAX: usize = 8;
/// Names of ours begin so; others are nobody's business.
const PREFIX: &str = "culvert_";

/// What a page told.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Told {
    pub(super) samples: Vec<wire::Sample>,
    /// Samples that had no place, or could not be read.
    pub(super) left_out: u32,
}

/// Reads a page. A line that cannot be read is left out.
pub(super) fn read(page: &str) -> Told {
    let mut told = Told::default();
    for line in page.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if !line.starts_with(PREFIX) {
            continue;
        }
        match sample(line) {
            Some(sample) if told.samples.len() < SAMPLES_MAX => told.samples.push(sample),
            _ => told.left_out = told.left_out.saturating_add(1),
        }
    }
    told
}

/// `name{label="value",…} number [time]`
fn sample(line: &str) -> Option<wire::Sample> {
    let end = line.find(|c: char| !is_name(c))?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => (Vec::new(), rest),
    };
    let number = rest.split_ascii_whitespace().next()?;
    let value: f64 = number.parse().ok().filter(|value: &f64| value.is_finite())?;
    (name.len() <= NAME_MAX).then(|| wire::Sample { name: name.to_owned(), labels, value })
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// The labels, and what follows the brace.
fn labels(mut text: &str) -> Option<(Vec<wire::Label>, &str)> {
    let mut labels = Vec::new();
    loop {
        text = text.trim_start_matches([' ', ',']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, rest) = text.split_once("=\"")?;
        let (value, rest) = quoted(rest)?;
        let sound = (1..=NAME_MAX).contains(&name.len()) && name.chars().all(is_name);
        if !sound || value.len() > VALUE_MAX || labels.len() == LABELS_MAX {
            return None;
        }
        labels.push(wire::Label { name: name.to_owned(), value });
        text = rest;
    }
}

/// A value up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(page: &str) -> Vec<String> {
        let labels = |sample: &wire::Sample| -> Vec<String> {
            sample.labels.iter().map(|label| format!("{}={:?}", label.name, label.value)).collect()
        };
        let told = read(page);
        told.samples.iter().map(|s| format!("{} {} {}", s.name, labels(s).join(","), s.value)).collect()
    }

    #[test]
    fn what_prometheus_writes_is_read() {
        let page = "# HELP culvert_a Text\n# TYPE culvert_a gauge\nculvert_a 1\n\
            culvert_b_total{kind=\"a\\\"b\\\\\\nc\",x=\"\"} 2.5e3 1700000000000\nculvert_c{} -0.5\ngo_threads 7\n# EOF\n";
        assert_eq!(
            shown(page),
            ["culvert_a  1", "culvert_b_total kind=\"a\\\"b\\\\\\nc\",x=\"\" 2500", "culvert_c  -0.5"]
        );
        assert_eq!(read(page).left_out, 0);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_left_out_and_no_other() {
        let bad = [
            "culvert_a",
            "culvert_a{",
            "culvert_a{x=\"1} 2",
            "culvert_a{=\"1\"} 2",
            "culvert_a NaN",
            "culvert_a +Inf",
            "culvert_a one",
            "culvert_a{x=\"1\" 2",
        ];
        let told = read(&format!("{}\nculvert_good 3\n", bad.join("\n")));
        assert_eq!((told.samples.len(), told.left_out), (1, 8));
    }

    #[test]
    fn there_is_an_end_to_what_is_taken() {
        let page: String = (0..500).map(|n| format!("culvert_a{{n=\"{n}\"}} 1\n")).collect();
        let told = read(&page);
        assert_eq!((told.samples.len(), told.left_out), (SAMPLES_MAX, 372));
        let long = format!("culvert_a{{x=\"{}\"}} 1", "y".repeat(VALUE_MAX + 1));
        assert_eq!(read(&long).left_out, 1);
    }

    proptest! {
        #[test]
        fn any_label_comes_through(value in "\\PC{0,20}", number in -1e9_f64..1e9) {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            let told = read(&format!("culvert_x{{a=\"{escaped}\"}} {number}"));
            prop_assume!(value.len() <= VALUE_MAX);
            let sample = told.samples.first().unwrap();
            prop_assert_eq!(&sample.labels[0].value, &value);
            prop_assert_eq!(sample.value, number);
        }

        #[test]
        fn any_text_is_read_or_left_out(page in "\\PC{0,200}", tail in "[{}=\",a_ 1\\\\\\n]{0,60}") {
            let told = read(&format!("{page}\nculvert_a{tail}"));
            prop_assert!(told.samples.len() <= SAMPLES_MAX);
        }
    }
}
