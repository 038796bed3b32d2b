//! Dates as web servers write them.

use std::mem::MaybeUninit;
use std::time::SystemTime;

use nix::libc;

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// For a log, in local time: `21/Nov/2026 08:10:11`.
pub(super) fn for_log(time: SystemTime) -> String {
    let time = broken_down(time, libc::localtime_r);
    format!(
        "{:02}/{}/{} {:02}:{:02}:{:02}",
        time.tm_mday,
        month(&time),
        year(&time),
        time.tm_hour,
        time.tm_min,
        time.tm_sec
    )
}

/// For the header field Date, RFC 9110, 5.6.7: `Sat, 21 Nov 2026 08:10:11 GMT`.
pub(super) fn for_header(time: SystemTime) -> String {
    let time = broken_down(time, libc::gmtime_r);
    format!(
        "{}, {:02} {} {} {:02}:{:02}:{:02} GMT",
        name(&DAYS, time.tm_wday),
        time.tm_mday,
        month(&time),
        year(&time),
        time.tm_hour,
        time.tm_min,
        time.tm_sec
    )
}

type BreakDown = unsafe extern "C" fn(*const libc::time_t, *mut libc::tm) -> *mut libc::tm;

fn broken_down(time: SystemTime, by: BreakDown) -> libc::tm {
    // A clock that says it is before 1970 is as wrong as 1970 is.
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.map_or(0, |since| since.as_secs());
    let seconds = libc::time_t::try_from(seconds).unwrap_or(libc::time_t::MAX);
    // SAFETY: all integers, and a pointer that may be null.
    let mut broken_down: libc::tm = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: both pointers are to live values; where the year does not fit, nothing is written.
    unsafe { by(&raw const seconds, &raw mut broken_down) };
    broken_down
}

fn month(time: &libc::tm) -> &'static str {
    name(&MONTHS, time.tm_mon)
}

fn year(time: &libc::tm) -> i64 {
    1900 + i64::from(time.tm_year)
}

fn name(names: &[&'static str], number: i32) -> &'static str {
    let name = usize::try_from(number).ok();
    name.and_then(|number| names.get(number)).unwrap_or(&"?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn dates_are_those_of_date() {
        for seconds in [0, 1_795_248_611, 951_782_400, 4_102_444_799] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let date = |arguments: &[&str]| {
                let mut date = Command::new("date");
                date.env("LC_ALL", "C");
                let output = date.arg(format!("-d@{seconds}")).args(arguments).output();
                String::from_utf8(output.unwrap().stdout).unwrap()
            };
            let expected = date(&["-u", "+%a, %d %b %Y %H:%M:%S GMT"]);
            assert_eq!(for_header(time), expected.trim_end());
            assert_eq!(for_log(time), date(&["+%d/%b/%Y %H:%M:%S"]).trim_end());
        }
        let rfc = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(for_header(rfc), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn no_clock_makes_it_panic() {
        for_header(SystemTime::UNIX_EPOCH - Duration::from_secs(1));
        for_log(SystemTime::UNIX_EPOCH + Duration::from_secs(i64::MAX as u64));
    }
}
