//! What every refusal of something that was written has in common.

use netbpf::Failure;

/// It is the fault of who wrote it, it is one line that does nothing to a terminal, and where it names a line of
/// the file, there is one.
pub fn assert_refusal(file: &str, text: &str, failure: &Failure) {
    assert!(matches!(failure, Failure::Usage(_)), "{failure:?}");
    let said = failure.to_string();
    assert!(
        !said.is_empty() && !said.contains(char::is_control),
        "{said:?}"
    );
    let place = said
        .strip_prefix(file)
        .and_then(|rest| rest.strip_prefix(':'));
    if let Some((number, _)) = place.and_then(|rest| rest.split_once(':')) {
        let number: usize = number.parse().expect("the number of a line");
        // What is missing may be so behind the last line.
        let lines = text.split('\n').count();
        assert!((1..=lines).contains(&number), "{said:?}");
    }
}
