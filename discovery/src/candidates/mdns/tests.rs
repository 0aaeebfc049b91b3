use super::*;
#[test]
fn the_tag_differs_between_tokens_and_reveals_neither() {
    assert_ne!(tag("abc"), tag("abd"));
    assert_eq!(tag("abc").len(), 16);
    assert!(!tag("abc").contains("abc"));
}
