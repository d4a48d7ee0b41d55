//! Numbers as people write them, and text that is safe in HTML.

use crate::matrix::kind::Test;

/// Three significant digits, or as many as stand before the point.
pub fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        large if large >= 99.95 => 0,
        medium if medium >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

/// A result of `test`, in the unit its numbers are pleasant in.
pub fn with_unit(test: Test, value: f64) -> String {
    let (divisor, unit) = scale(test);
    format!("{} {unit}", digits(value / divisor))
}

/// The same without the unit.
pub fn bare(test: Test, value: f64) -> String {
    digits(value / scale(test).0)
}

/// The unit alone.
pub fn unit(test: Test) -> &'static str {
    scale(test).1
}

fn scale(test: Test) -> (f64, &'static str) {
    match test {
        Test::Rr | Test::RrPinned | Test::Crr => (1e3, "k/s"),
        Test::Pps64 => (1e3, "kpps"),
        Test::Idle => (0.01, "% of a core"),
        _ => (1e9, "Gb/s"),
    }
}

/// A wire's MTU, for headings and cell names.
pub fn wire(mtu: Option<u32>) -> String {
    mtu.map_or_else(String::new, |mtu| mtu.to_string())
}

/// `text` with the characters HTML gives a meaning replaced.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_of_everything() {
        assert_eq!(digits(0.123_4), "0.12");
        assert_eq!(digits(9.999), "10.0");
        assert_eq!(digits(17.26), "17.3");
        assert_eq!(digits(99.99), "100");
        assert_eq!(digits(1_234.5), "1234");
    }

    #[test]
    fn every_test_has_its_unit() {
        assert_eq!(with_unit(Test::Dts, 12.34e9), "12.3 Gb/s");
        assert_eq!(with_unit(Test::Pps64, 190_400.0), "190 kpps");
        assert_eq!(with_unit(Test::Crr, 9_500.0), "9.50 k/s");
        assert_eq!(with_unit(Test::Idle, 0.002), "0.20 % of a core");
    }

    #[test]
    fn reasons_cannot_become_markup() {
        assert_eq!(escaped("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
    }
}
