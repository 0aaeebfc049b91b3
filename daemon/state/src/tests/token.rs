use std::time::Duration;

use muster_types::{DurationMillis, Role, UnixMillis};

use super::*;
use crate::TokenStatus;
use crate::command::{Grant, RevokeToken};

fn revoke(token: &str) -> Command {
    Command::RevokeToken(RevokeToken { token: token_id(token), by: by(ADMIN) })
}

#[test]
fn a_token_is_valid_until_it_expires_is_used_up_or_revoked() {
    let mut replica = Replica::founded(1);
    let mut limited = grant(&[Role::Worker]);
    limited.ttl = Some(DurationMillis::from_millis(60_000));
    limited.uses_allowed = Some(1);
    replica.done(create("limitedaaa", limited));
    let created = replica.now;
    let later = |millis| created.saturating_add(Duration::from_millis(millis));
    let status =
        |replica: &Replica, now| replica.state.token(&token_id("limitedaaa")).unwrap().status(now);
    assert_eq!(status(&replica, later(59_999)), TokenStatus::Valid);
    assert_eq!(status(&replica, later(60_000)), TokenStatus::Expired);
    let mut admission = admit(2, Role::Worker);
    admission.token = token_id("limitedaaa");
    replica.done(Command::Admit(admission));
    assert_eq!(status(&replica, created), TokenStatus::UsedUp);
    replica.done(revoke("limitedaaa"));
    assert_eq!(status(&replica, created), TokenStatus::Revoked);
}

#[test]
fn creating_and_revoking_twice_is_harmless() {
    let mut replica = Replica::founded(1);
    let once = create("tokenaaaaa", grant(&[Role::Worker]));
    assert_eq!(replica.run(once.clone()), Outcome::Done);
    let entry = replica.state.audit().next_back().unwrap();
    assert_eq!((entry.actor.as_str(), entry.subject.as_str()), ("admin", "token tokenaaaaa"));
    assert_eq!(replica.run(once.clone()), Outcome::Unchanged);
    assert_eq!(
        replica.refused(create("tokenaaaaa", grant(&[Role::ControlPlane]))),
        refusal(RefusalKind::Conflict, "there is another token tokenaaaaa already; make a new one")
    );
    assert_eq!(replica.run(revoke("tokenaaaaa")), Outcome::Done);
    assert_eq!(replica.run(revoke("tokenaaaaa")), Outcome::Unchanged);
    assert_eq!(replica.run(once), Outcome::Unchanged, "and it stays revoked");
    assert_eq!(
        replica.state.token(&token_id("tokenaaaaa")).unwrap().status(UnixMillis::default()),
        TokenStatus::Revoked
    );
    assert_eq!(
        replica.refused(revoke("unknownaaa")),
        refusal(
            RefusalKind::NoSuchToken,
            "there is no token unknownaaa; see `musterctl token list`"
        )
    );
}

#[test]
fn the_founding_token_can_be_revoked_like_any_other() {
    let mut replica = Replica::founded(1);
    replica.done(revoke("foundingaa"));
    assert_eq!(replica.refused(Command::Admit(admit(2, Role::Worker))).kind, RefusalKind::Token);
}

#[test]
fn a_grant_that_makes_no_sense_is_refused() {
    let mut replica = Replica::founded(1);
    let mut refused = |change: fn(&mut Grant), message: &str| {
        let mut wrong = grant(&[Role::Worker]);
        change(&mut wrong);
        assert_eq!(
            replica.refused(create("tokenaaaaa", wrong)),
            refusal(RefusalKind::Invalid, message)
        );
    };
    refused(|g| g.roles.clear(), "a token admits at least one role: control-plane, worker");
    let life_span =
        "a token's ttl is 1 millisecond to 10 years; omit it for a token that never expires";
    refused(|g| g.ttl = Some(DurationMillis::default()), life_span);
    refused(|g| g.ttl = Some(DurationMillis::from_millis(u64::MAX)), life_span);
    let uses = "a token has 1 to 1000000 uses; omit the number for no limit";
    refused(|g| g.uses_allowed = Some(0), uses);
    refused(|g| g.uses_allowed = Some(1_000_001), uses);
    let line = "a token's description is one line of at most 256 bytes";
    refused(|g| g.description = "x".repeat(257), line);
    refused(|g| g.description = "a\nb".to_owned(), line);
}

#[test]
fn only_an_admin_makes_and_revokes_tokens() {
    let mut replica = Replica::founded(1);
    let Command::CreateToken(mut made) = create("tokenaaaaa", grant(&[Role::Worker])) else {
        unreachable!()
    };
    made.by = by(READER);
    assert_eq!(
        replica.refused(Command::CreateToken(made)),
        refusal(
            RefusalKind::NotAllowed,
            "operator reader has the role reader, which may not call CreateToken; ask an admin"
        )
    );
    let by = by(OPERATOR);
    let revoked = Command::RevokeToken(RevokeToken { token: founding_token(), by });
    assert_eq!(
        replica.refused(revoked),
        refusal(
            RefusalKind::NotAllowed,
            "operator operator has the role operator, which may not call RevokeToken; ask an admin"
        )
    );
}

#[test]
fn the_oldest_token_that_is_no_longer_valid_makes_room() {
    let mut replica = Replica::founded(1);
    let numbered = |number: usize| {
        let digits = [number / 676 % 26, number / 26 % 26, number % 26];
        let letters = digits.map(|d| char::from(b'a' + u8::try_from(d).unwrap()));
        format!("number2{}", letters.iter().collect::<String>())
    };
    for number in 1..4096 {
        replica.done(create(&numbered(number), grant(&[Role::Worker])));
    }
    assert_eq!(
        replica.refused(create("onemoreaaa", grant(&[Role::Worker]))),
        refusal(
            RefusalKind::Full,
            "the cluster holds 4096 valid tokens, the maximum; revoke some with `musterctl \
             token revoke`"
        )
    );
    replica.done(revoke(&numbered(9)));
    replica.done(revoke(&numbered(7)));
    replica.done(create("onemoreaaa", grant(&[Role::Worker])));
    assert!(replica.state.token(&token_id(&numbered(7))).is_none());
    assert!(replica.state.token(&token_id(&numbered(9))).is_some());
    assert_eq!(replica.state.tokens().len(), 4096);
}
