//! What a process says when it ends the job.

/// Says why the process ends, where no error can be returned any more.
#[allow(clippy::print_stderr, reason = "nobody is left to print an error")]
pub(super) fn last_words(words: &str) {
    eprintln!("ediffi-cluster: {words}");
}
