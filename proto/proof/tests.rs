//! The exchange as it should be, and what a stranger between or at either end can try.

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";

fn secret(text: &str) -> Secret {
    text.parse().unwrap()
}

fn user(name: &str) -> Username {
    name.try_into().unwrap()
}

fn nonce(byte: u8) -> Nonce {
    Nonce([byte; NONCE_LENGTH])
}

fn bare(line: &str) -> &[u8] {
    line.strip_suffix('\n').unwrap().as_bytes()
}

fn ok() -> Reply {
    Reply::Ok {
        version: "0.1.0".into(),
        uid: 1000,
    }
}

/// An exchange up to the host's answer.
fn answered(host: &str, name: &str) -> (HostExchange, AgentExchange, String) {
    let (mut host, hello) = HostExchange::begin(user(name), secret(host), nonce(1));
    let (agent, challenge) = AgentExchange::challenge(bare(&hello), nonce(2));
    let answer = host.answer(bare(&challenge)).unwrap();
    (host, agent, answer)
}

#[test]
fn both_sides_prove_that_they_have_the_secret() {
    let (host, agent, answer) = answered(SECRET, "alice");
    let proven = agent.check(&[secret(SECRET)], bare(&answer)).unwrap();
    let sealed = proven.seal(&ok());
    assert_eq!(host.check(bare(&sealed)), Ok(()));
    assert_eq!(Reply::parse(bare(&sealed)), Ok(ok()));
}

/// For authors of other clients: docs/protocol.md has the same lines.
#[test]
fn the_lines_are_those_of_the_documentation() {
    let (host, agent, answer) = answered(SECRET, "alice");
    let sealed = agent
        .check(&[secret(SECRET)], bare(&answer))
        .unwrap()
        .seal(&ok());
    let documentation = include_str!("../../docs/protocol.md");
    let lines = [
        String::from_utf8(host.lines).unwrap(),
        sealed,
        SECRET.into(),
    ];
    for line in lines.iter().flat_map(|lines| lines.lines()) {
        assert!(documentation.contains(line), "not there: {line}");
    }
}

#[test]
fn while_a_secret_is_changed_either_will_do() {
    let both = [secret(OTHER), secret(SECRET)];
    for shown in [SECRET, OTHER] {
        let (host, agent, answer) = answered(shown, "alice");
        let proven = agent.check(&both, bare(&answer)).unwrap();
        assert_eq!(host.check(bare(&proven.seal(&ok()))), Ok(()));
    }
}

#[test]
fn a_host_without_the_secret_is_refused() {
    let (_, agent, answer) = answered(OTHER, "root");
    let checked = agent.check(&[secret(SECRET)], bare(&answer));
    assert_eq!(checked.unwrap_err(), ProofError::Wrong);
    let (_, agent, answer) = answered(SECRET, "root");
    let none = agent.check(&[], bare(&answer));
    assert_eq!(none.unwrap_err(), ProofError::Wrong);
    let zero = format!("answer proof={}", "0".repeat(64));
    for wrong in ["", "answer", "answer proof=", "answer proof=00", &zero] {
        let (_, agent, _) = answered(SECRET, "root");
        assert!(agent.check(&[secret(SECRET)], wrong.as_bytes()).is_err());
    }
}

#[test]
fn an_agent_without_the_secret_is_refused() {
    let (host, _, _) = answered(SECRET, "alice");
    // It lets everybody in, and knows another secret.
    let (_, agent, theirs) = answered(OTHER, "alice");
    let proven = agent.check(&[secret(OTHER)], bare(&theirs)).unwrap();
    let sealed = proven.seal(&ok());
    assert_eq!(host.check(bare(&sealed)), Err(ProofError::Wrong));
    for unproven in ["ok version=0.1.0 uid=1000", "ok", "", "error busy proof=00"] {
        let checked = host.check(unproven.as_bytes());
        assert!(matches!(checked, Err(ProofError::Unexpected(_))));
    }
}

#[test]
fn a_proof_thrown_back_proves_nothing() {
    // The impostor gives the host's own nonce as its challenge, and the host's proof as its own.
    let (mut host, _) = HostExchange::begin(user("alice"), secret(SECRET), nonce(1));
    let challenge = format!("challenge nonce={}", nonce(1));
    let answer = host.answer(challenge.as_bytes()).unwrap();
    let proof = answer.trim_end().strip_prefix("answer ").unwrap();
    let thrown_back = format!("ok version=0.1.0 uid=1000 {proof}");
    assert_eq!(host.check(thrown_back.as_bytes()), Err(ProofError::Wrong));
}

#[test]
fn a_recorded_answer_is_of_no_use_later() {
    let (_, _, recorded) = answered(SECRET, "alice");
    let (_, hello) = HostExchange::begin(user("alice"), secret(SECRET), nonce(1));
    let (agent, _) = AgentExchange::challenge(bare(&hello), nonce(3));
    let replayed = agent.check(&[secret(SECRET)], bare(&recorded));
    assert_eq!(replayed.unwrap_err(), ProofError::Wrong);
}

#[test]
fn an_agents_recorded_proof_is_of_no_use_later() {
    let (_, agent, answer) = answered(SECRET, "alice");
    let recorded = agent
        .check(&[secret(SECRET)], bare(&answer))
        .unwrap()
        .seal(&ok());
    let (mut host, _) = HostExchange::begin(user("alice"), secret(SECRET), nonce(9));
    let challenge = format!("challenge nonce={}", nonce(2));
    host.answer(challenge.as_bytes()).unwrap();
    assert_eq!(host.check(bare(&recorded)), Err(ProofError::Wrong));
}

#[test]
fn nobody_between_changes_a_word_unseen() {
    // The host says alice, and somebody makes it root.
    let (mut host, hello) = HostExchange::begin(user("alice"), secret(SECRET), nonce(1));
    for changed in [
        hello.replace("alice", "root"),
        hello.replace("user=alice", "user=root user=alice"),
        hello.replace('\n', " word=added\n"),
        hello.replace(&nonce(1).to_string(), &nonce(4).to_string()),
    ] {
        assert_ne!(changed, hello);
        let (agent, challenge) = AgentExchange::challenge(bare(&changed), nonce(2));
        let answer = host.answer(bare(&challenge)).unwrap();
        let checked = agent.check(&[secret(SECRET)], bare(&answer));
        assert_eq!(checked.unwrap_err(), ProofError::Wrong, "{changed}");
        host.lines = hello.clone().into_bytes();
    }
    // And the other way: what the agent said of the user.
    let (host, agent, answer) = answered(SECRET, "alice");
    let sealed = agent
        .check(&[secret(SECRET)], bare(&answer))
        .unwrap()
        .seal(&ok());
    for changed in [
        sealed.replace("uid=1000", "uid=0"),
        sealed.replace("ok ", "ok uid=0 "),
        sealed.replace("0.1.0", "9"),
    ] {
        assert_ne!(changed, sealed);
        assert_eq!(host.check(bare(&changed)), Err(ProofError::Wrong));
    }
}

#[test]
fn numbers_are_taken_in_one_spelling_alone() {
    let text = nonce(0xab).to_string();
    assert_eq!(Nonce::parse(&text), Some(nonce(0xab)));
    for wrong in [
        text.to_uppercase(),
        text[1..].into(),
        format!("{text}0"),
        format!("+{}", &text[1..]),
        "é".repeat(32),
    ] {
        assert_eq!(Nonce::parse(&wrong), None, "{wrong}");
    }
}

#[test]
fn neither_side_shows_the_secret() {
    let (host, agent, answer) = answered(SECRET, "alice");
    let shown = format!("{host:?}");
    let proven = agent.check(&[secret(SECRET)], bare(&answer)).unwrap();
    assert!(!format!("{shown}{proven:?}").contains(SECRET));
}
