//! Wall-clock instants as people read them. Formats only; reads no clock.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `Sat Nov 21 04:23:26 2026`, in the host's time zone: the form that host blocks and old logs use.
pub fn ctime(epoch_secs: i64) -> String {
    Timestamp::from_second(epoch_secs).map_or_else(
        |_| format!("{epoch_secs} s after 1970"),
        |instant| instant.to_zoned(TimeZone::system()).strftime("%a %b %e %H:%M:%S %Y").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_range_is_not_a_panic() {
        assert_eq!(ctime(i64::MAX), format!("{} s after 1970", i64::MAX));
        assert!(ctime(1_700_000_000).ends_with("2023"));
    }
}
