use proptest::prelude::*;

use super::*;

fn parse_error(text: &str) -> TokenError {
    text.parse::<Token>().unwrap_err()
}

#[test]
fn a_token_reads_back_what_it_exposes() {
    let token = Token::generate();
    let text = token.expose();
    assert_eq!(text.len(), 49);
    let again: Token = text.parse().unwrap();
    assert_eq!(again.id(), token.id());
    assert_eq!(again.verifier(), token.verifier());
    assert_eq!(again.expose(), text);
}

#[test]
fn two_tokens_share_nothing() {
    let (one, two) = (Token::generate(), Token::generate());
    assert_ne!(one.id(), two.id());
    assert_ne!(one.verifier(), two.verifier());
}

#[test]
fn a_short_secret_is_refused_with_the_reason() {
    assert_eq!(parse_error("abcdef.0123456789abcdef"), TokenError::TooShort { found: 16 });
    let said = parse_error("abcdefghij.hunter2").to_string();
    assert!(said.contains("128 bits") && said.contains("musterctl init"), "{said}");
}

#[test]
fn a_hand_made_secret_is_refused_even_with_a_right_checksum() {
    let (id, secret) = ("abcdefghij", "passwordpasswordpasswordpassword");
    let check = checksum(id.bytes().chain(secret.bytes()))
        .map(|symbol| char::from(ALPHABET[usize::from(symbol)]));
    let text = format!("{id}.{secret}{}", check.iter().collect::<String>());
    assert!(matches!(parse_error(&text), TokenError::LowEntropy { .. }));
}

#[test]
fn every_kind_of_damage_has_its_name() {
    let good = Token::generate().expose();
    assert_eq!(parse_error(""), TokenError::Format);
    assert_eq!(parse_error(&good.replace('.', "")), TokenError::Format);
    assert_eq!(parse_error(&format!("{}.", *good)), TokenError::Format);
    assert_eq!(parse_error(&good[..48]), TokenError::Length { found: 37 });
    assert_eq!(parse_error(&format!("{}a", *good)), TokenError::Length { found: 39 });
    assert_eq!(parse_error(&good[1..]), TokenError::Id);
    assert_eq!(parse_error(&good.to_uppercase()), TokenError::Id);
    let wrong = format!("{}1{}", &good[..20], &good[21..]);
    assert_eq!(parse_error(&wrong), TokenError::Alphabet { position: 10 });
}

#[test]
fn nothing_printed_holds_the_secret() {
    let token = Token::generate();
    let text = token.expose();
    let mut damaged = text.to_string();
    let last = if damaged.pop() == Some('a') { 'b' } else { 'a' };
    damaged.push(last);
    let error = parse_error(&damaged);
    for shown in [
        format!("{token:?}"),
        format!("{:?}", token.verifier()),
        format!("{error:?} {error}"),
        format!("{:?}", parse_error(&text[..48])),
    ] {
        assert!(!shown.contains(&text[11..19]), "{shown}");
    }
}

#[test]
fn every_single_change_and_every_transposition_is_found() {
    let text = Token::generate().expose();
    for position in (0..text.len()).filter(|&i| i != ID_LEN) {
        for &other in ALPHABET {
            let mut bytes = text.as_bytes().to_vec();
            if std::mem::replace(&mut bytes[position], other) == other {
                continue;
            }
            let changed = String::from_utf8(bytes).unwrap();
            assert!(matches!(parse_error(&changed), TokenError::Checksum { .. }), "{position}");
        }
        for with in position + 1..text.len() {
            let mut bytes = text.as_bytes().to_vec();
            bytes.swap(position, with);
            if bytes != text.as_bytes() {
                let swapped = String::from_utf8(bytes).unwrap();
                assert!(swapped.parse::<Token>().is_err(), "{position} and {with}");
            }
        }
    }
}

proptest! {
    #[test]
    fn up_to_four_wrong_characters_are_always_found(
        changes in proptest::collection::btree_map(0_usize..48, 1_u8..32, 1..=4),
    ) {
        let mut bytes = Token::generate().expose().as_bytes().to_vec();
        for (&position, &step) in &changes {
            let position = if position >= ID_LEN { position + 1 } else { position };
            let symbol = (value(bytes[position]).unwrap() + step) % 32;
            bytes[position] = ALPHABET[usize::from(symbol)];
        }
        let changed = String::from_utf8(bytes).unwrap();
        let found = matches!(parse_error(&changed), TokenError::Checksum { .. });
        prop_assert!(found);
    }

    #[test]
    fn any_other_character_in_place_of_one_is_found(position in 0_usize..49, other: char) {
        let text = Token::generate().expose();
        let changed: String =
            text.chars().enumerate().map(|(i, c)| if i == position { other } else { c }).collect();
        prop_assume!(changed != *text);
        prop_assert!(changed.parse::<Token>().is_err());
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,80}") {
        prop_assert!(text.parse::<Token>().is_err());
    }
}

#[test]
fn a_verifier_is_stored_as_bytes_and_never_as_text() {
    let verifier = Token::generate().verifier();
    let stored = rmp_serde::to_vec_named(&verifier).unwrap();
    assert_eq!(stored.len(), 66, "64 bytes and the header of a byte string");
    assert_eq!(rmp_serde::from_slice::<Verifier>(&stored).unwrap(), verifier);
    assert!(serde_json::to_string(&verifier).is_err());
    assert!(Verifier::from_bytes(&verifier.to_bytes()[1..]).is_err());
    assert_eq!(Verifier::from_bytes(&verifier.to_bytes()).unwrap(), verifier);
}
