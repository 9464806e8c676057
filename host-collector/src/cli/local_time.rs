//! The time zone of whoever asks.

use std::mem::MaybeUninit;

/// By how many seconds this process's time zone is ahead of UTC at a moment, in seconds since 1970; 0 where the C
/// library cannot say.
#[expect(unsafe_code, reason = "the standard library knows no time zone")]
pub(super) fn offset_s(moment_s: i64) -> i64 {
    let mut broken_down = MaybeUninit::<libc::tm>::zeroed();
    let moment: libc::time_t = moment_s;
    // SAFETY: localtime_r(3) reads a time_t and writes a struct tm, which both are there for the call; nobody in
    // this process changes the environment.
    let answer = unsafe { libc::localtime_r(&raw const moment, broken_down.as_mut_ptr()) };
    if answer.is_null() {
        return 0;
    }
    // SAFETY: all zeros are a struct tm, and by now it has been written.
    let broken_down = unsafe { broken_down.assume_init() };
    broken_down.tm_gmtoff
}
