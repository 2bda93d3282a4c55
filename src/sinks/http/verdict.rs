//! What an answer means: its status, and how long it asks to be left alone.

use jiff::civil::DateTime;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use std::time::Duration;

/// The longest time that a destination is left alone because it asked for it. One that names a longer one, or whose clock is
/// wrong, is asked again after this; it may say the same again.
pub(super) const LONGEST_REST: Duration = Duration::from_mins(5);

/// What becomes of an event that was answered by a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It arrived.
    Delivered,
    /// It had arrived before. Where the first request of a process is answered so, the one that arrived was sent by the
    /// process before it.
    Held,
    /// Not now: the same again, later.
    Again,
    /// The set-up is wrong, here or there, and no event would fare better.
    Misconfigured,
    /// This event is refused, and always will be.
    Rejected,
}

impl Verdict {
    /// The meaning of a status code.
    pub(super) fn of(status: u16) -> Self {
        match status {
            200..=299 => Self::Delivered,
            409 => Self::Held,
            408 | 425 | 429 | 500..=599 => Self::Again,
            401 | 403 | 404 | 405 | 407 => Self::Misconfigured,
            400..=499 => Self::Rejected,
            // A redirect is not followed: the events of this system go where its operator says. Nothing else is HTTP.
            _ => Self::Misconfigured,
        }
    }
}

/// How long `Retry-After` asks to wait, at most [`LONGEST_REST`]: so many seconds, or until a date. A date counts from the
/// answer's own `Date`, where it has one, so that clocks may differ; else from `now`, in seconds since the epoch. None where
/// it says nothing that could be read.
///
/// Source: RFC 9110, 10.2.3 and 5.6.7.
pub(super) fn retry_after(value: &str, date: Option<&str>, now: i64) -> Option<Duration> {
    let value = value.trim();
    let seconds = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number has are a long time.
        value.parse().unwrap_or(u64::MAX)
    } else {
        let until = http_date(value)?;
        let from = date.and_then(http_date).unwrap_or(now);
        u64::try_from(until.saturating_sub(from)).unwrap_or(0)
    };
    Some(Duration::from_secs(seconds).min(LONGEST_REST))
}

/// One of the three forms of a date, in seconds since the epoch.
fn http_date(text: &str) -> Option<i64> {
    const FORMS: [&str; 3] = [
        "%a, %d %b %Y %H:%M:%S GMT",
        "%A, %d-%b-%y %H:%M:%S GMT",
        "%a %b %e %H:%M:%S %Y",
    ];
    let read = |form: &&str| -> Option<DateTime> {
        strtime::parse(form, text.trim()).ok()?.to_datetime().ok()
    };
    let date = FORMS.iter().find_map(read)?;
    // The last two days of the year 9999 are more than a timestamp holds.
    Some(
        TimeZone::UTC
            .to_timestamp(date)
            .map_or(i64::MAX, jiff::Timestamp::as_second),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_means_what_the_contract_says() {
        use Verdict::{Again, Delivered, Held, Misconfigured, Rejected};
        for (statuses, verdict) in [
            (&[200, 201, 202, 204, 299][..], Delivered),
            (&[409], Held),
            (&[408, 425, 429, 500, 501, 502, 503, 504, 599], Again),
            (&[401, 403, 404, 405, 407], Misconfigured),
            (&[300, 301, 302, 303, 304, 307, 308], Misconfigured),
            (&[101, 600, 999], Misconfigured),
            (
                &[400, 402, 406, 410, 411, 413, 415, 422, 428, 451, 499],
                Rejected,
            ),
        ] {
            for status in statuses {
                assert_eq!(Verdict::of(*status), verdict, "{status}");
            }
        }
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_in_all_forms_of_a_date() {
        // Sun, 06 Nov 1994 08:49:37 GMT
        let then = 784_111_777;
        let seconds = |text: &str| retry_after(text, None, then - 30).map(|wait| wait.as_secs());
        assert_eq!(seconds("0"), Some(0));
        assert_eq!(seconds(" 120 "), Some(120));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(30));
        assert_eq!(seconds("Sunday, 06-Nov-94 08:49:37 GMT"), Some(30));
        assert_eq!(seconds("Sun Nov  6 08:49:37 1994"), Some(30));
        for text in [
            "",
            "-1",
            "1.5",
            "soon",
            "1994-11-06T08:49:37Z",
            "Sun, 06 Nov 1994 08:49:37 +0300",
        ] {
            assert_eq!(seconds(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_date_counts_from_the_answers_own_and_what_is_past_is_now() {
        let date = Some("Sun, 06 Nov 1994 08:49:27 GMT");
        let wait = |now| retry_after("Sun, 06 Nov 1994 08:49:37 GMT", date, now);
        assert_eq!(wait(0), Some(Duration::from_secs(10)));
        assert_eq!(wait(i64::MAX), Some(Duration::from_secs(10)));
        let past = retry_after("Sun, 06 Nov 1994 08:49:17 GMT", date, 0);
        assert_eq!(past, Some(Duration::ZERO));
    }

    #[test]
    fn no_rest_is_longer_than_the_longest() {
        for text in [
            "301",
            "86400",
            "99999999999999999999999",
            "Fri, 31 Dec 9999 23:59:59 GMT",
        ] {
            assert_eq!(retry_after(text, None, 0), Some(LONGEST_REST), "{text}");
        }
    }
}
