//! Signals by SSH's names (RFC 4254, 6.10) and by Linux's numbers, which are the same wherever a guest runs.

use russh::Sig;

/// Those with a name of SSH's own, and further ones that people send.
const NAMES: [(&str, i32); 20] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("CONT", 18),
    ("STOP", 19),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("SYS", 31),
];

/// `None` for a name that Linux does not have.
pub(super) fn number(signal: &Sig) -> Option<i32> {
    let name = match signal {
        Sig::HUP => "HUP",
        Sig::INT => "INT",
        Sig::QUIT => "QUIT",
        Sig::ILL => "ILL",
        Sig::ABRT => "ABRT",
        Sig::FPE => "FPE",
        Sig::KILL => "KILL",
        Sig::USR1 => "USR1",
        Sig::SEGV => "SEGV",
        Sig::PIPE => "PIPE",
        Sig::ALRM => "ALRM",
        Sig::TERM => "TERM",
        Sig::Custom(name) => name.as_str(),
    };
    NAMES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number)
}

/// How SSH tells that a signal ended a program.
pub(super) fn named(number: i32) -> Sig {
    match number {
        1 => Sig::HUP,
        2 => Sig::INT,
        3 => Sig::QUIT,
        4 => Sig::ILL,
        6 => Sig::ABRT,
        8 => Sig::FPE,
        9 => Sig::KILL,
        10 => Sig::USR1,
        11 => Sig::SEGV,
        13 => Sig::PIPE,
        14 => Sig::ALRM,
        15 => Sig::TERM,
        _ => {
            let found = NAMES.iter().find(|(_, known)| *known == number);
            // RFC 4254: a name of one's own has an @ in it.
            Sig::Custom(found.map_or_else(
                || format!("{number}@guestline"),
                |(name, _)| format!("{name}@guestline"),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_keeps_its_number() {
        for number_of in [1, 2, 3, 4, 6, 8, 9, 10, 11, 13, 14, 15] {
            assert_eq!(number(&named(number_of)), Some(number_of));
        }
        assert_eq!(number(&Sig::Custom("USR2".into())), Some(12));
        assert_eq!(number(&Sig::Custom("USR3".into())), None);
        assert!(matches!(named(7), Sig::Custom(name) if name == "BUS@guestline"));
    }
}
