//! Arithmetic of measurements: medians, spread, ratios, and Markdown tables of them.

/// Values of one thing measured several times.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample(Vec<f64>);

impl Sample {
    /// Adds a value; one that is no number is left out.
    pub fn push(&mut self, value: f64) {
        if value.is_finite() {
            self.0.push(value);
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was measured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value in the middle; of an even number the mean of the two.
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        let sorted = self.sorted();
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get(sorted.len().saturating_sub(1) / 2)?;
        Some(f64::midpoint(lower, upper))
    }

    /// The value that `share` of all stay under, by nearest rank.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let sorted = self.sorted();
        let rank = (sorted.len() as f64 * share.clamp(0.0, 1.0)).ceil() as usize;
        sorted.get(rank.max(1) - 1).copied()
    }

    /// Largest less smallest, as a share of the median.
    #[must_use]
    pub fn spread(&self) -> Option<f64> {
        let sorted = self.sorted();
        let median = self.median().filter(|median| *median != 0.0)?;
        Some((sorted.last()? - sorted.first()?) / median)
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut sample = Self::default();
        values.into_iter().for_each(|value| sample.push(value));
        sample
    }
}

/// One value beside the reference's; nothing without both, or beside nothing.
#[must_use]
pub fn ratio(value: Option<f64>, reference: Option<f64>) -> Option<f64> {
    let reference = reference.filter(|reference| *reference > 0.0)?;
    Some(value? / reference)
}

/// A number with about three digits that count.
#[must_use]
pub fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 1000.0 => thousands(value),
        large if large >= 100.0 => format!("{value:.0}"),
        large if large >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

/// A cell: the ratio, then median and spread in brackets; a dash where nothing was measured.
#[must_use]
pub fn cell(sample: &Sample, reference: &Sample) -> String {
    let Some(median) = sample.median() else { return "–".to_owned() };
    let spread = sample.spread().map(|spread| format!(" ±{:.0} %", spread * 50.0)).unwrap_or_default();
    match ratio(Some(median), reference.median()) {
        Some(ratio) => format!("{ratio:.2} ({}{spread})", short(median)),
        None => format!("{}{spread}", short(median)),
    }
}

/// A Markdown table: the first column to the left, the others to the right.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n| --- |{}\n", head.join(" | "), " ---: |".repeat(head.len().max(1) - 1));
    for row in rows {
        text.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    text
}

/// Cores and kernel, for whoever reads the table elsewhere.
#[must_use]
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    format!(
        "{cores} cores,{}, Linux {}, all on loopback.",
        model.trim_start_matches([' ', '\t', ':']).replacen("", " ", 1),
        kernel.trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(values: &[f64]) -> Sample {
        values.iter().copied().collect()
    }

    #[test]
    fn a_median_is_the_middle_whatever_the_order() {
        assert_eq!(sample(&[]).median(), None);
        assert_eq!(sample(&[9.0, 1.0, 5.0]).median(), Some(5.0));
        assert_eq!(sample(&[9.0, 1.0, 5.0, 7.0]).median(), Some(6.0));
        assert_eq!(sample(&[f64::NAN, 2.0, f64::INFINITY]).median(), Some(2.0), "only numbers count");
    }

    #[test]
    fn a_quantile_is_the_nearest_rank() {
        let hundred: Sample = (1..=100).map(f64::from).collect();
        assert_eq!(hundred.quantile(0.5), Some(50.0));
        assert_eq!(hundred.quantile(0.99), Some(99.0));
        assert_eq!((hundred.quantile(0.0), hundred.quantile(1.0)), (Some(1.0), Some(100.0)));
        assert_eq!(sample(&[]).quantile(0.5), None);
    }

    #[test]
    fn a_spread_is_relative_to_the_median() {
        assert_eq!(sample(&[8.0, 10.0, 12.0]).spread(), Some(0.4));
        assert_eq!(sample(&[0.0, 0.0]).spread(), None);
    }

    #[test]
    fn a_ratio_wants_both_sides() {
        assert_eq!(ratio(Some(3.0), Some(2.0)), Some(1.5));
        assert_eq!(ratio(Some(3.0), Some(0.0)), None);
        assert_eq!(ratio(None, Some(2.0)), None);
    }

    #[test]
    fn a_cell_says_ratio_median_and_half_the_spread() {
        assert_eq!(cell(&sample(&[90.0, 100.0, 110.0]), &sample(&[50.0])), "2.00 (100 ±10 %)");
        assert_eq!(cell(&sample(&[]), &sample(&[50.0])), "–");
        assert_eq!(cell(&sample(&[0.5]), &sample(&[])), "0.50 ±0 %");
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.123, 12.34, 123.4, 1234.5, 1_234_567.0, -1500.0].map(short);
        assert_eq!(texts, ["0.12", "12.3", "123", "1,234", "1,234,567", "-1,500"]);
    }

    #[test]
    fn a_table_is_markdown() {
        let text = table(&["what", "a"], &[vec!["w".to_owned(), "1".to_owned()]]);
        assert_eq!(text, "| what | a |\n| --- | ---: |\n| w | 1 |\n");
    }
}
