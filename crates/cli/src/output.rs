//! What commands print: lines on standard output. Logs go to standard error.

/// Prints a line for the user.
#[expect(clippy::print_stdout, reason = "this is the command's output")]
pub(crate) fn say(line: impl std::fmt::Display) {
    println!("{line}");
}

/// Tells why a command failed: the whole chain of causes, without a backtrace.
#[expect(clippy::print_stderr, reason = "this is the command's last word")]
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
