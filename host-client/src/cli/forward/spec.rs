//! `[LOCAL:]TARGET`, as on the command line: much as in ssh's `-L`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use guestline_client::ForwardTarget;

/// One listener and where its connections go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Forwarding {
    pub(super) local: LocalAddress,
    pub(super) target: ForwardTarget,
}

/// Where to listen on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LocalAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for Forwarding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix("unix:") {
            let (path, target) = rest
                .split_once(':')
                .filter(|(path, _)| !path.is_empty())
                .ok_or("expected unix:PATH:TARGET")?;
            return Ok(Self {
                local: LocalAddress::Unix(path.into()),
                target: parse_target(target)?,
            });
        }
        let (first, rest) = next_word(text)?;
        let Some(rest) = rest else {
            // A port alone, on both sides.
            let target = parse_target(first)?;
            let ForwardTarget::Tcp {
                address: None,
                port,
            } = target
            else {
                return Err("where to listen is missing: LOCAL:TARGET".into());
            };
            let local = LocalAddress::Tcp((Ipv4Addr::LOCALHOST, port).into());
            return Ok(Self { local, target });
        };
        let (address, port, target) = if is_number(first) {
            (Ipv4Addr::LOCALHOST.into(), first, rest)
        } else {
            let (port, target) = next_word(rest)?;
            let target = target.ok_or("expected ADDRESS:PORT:TARGET")?;
            (parse_address(first)?, port, target)
        };
        Ok(Self {
            local: LocalAddress::Tcp(SocketAddr::new(address, parse_port(port)?)),
            target: parse_target(target)?,
        })
    }
}

/// `PORT`, `ADDRESS:PORT`, `/PATH` or `unix:PATH`.
pub(super) fn parse_target(text: &str) -> Result<ForwardTarget, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path {
            "" => Err("expected unix:PATH".into()),
            path => Ok(ForwardTarget::Unix(path.into())),
        };
    }
    if text.starts_with('/') {
        return Ok(ForwardTarget::Unix(text.into()));
    }
    let (address, port) = match next_word(text)? {
        (port, None) => (None, port),
        // The guest's own, of either family.
        ("localhost", Some(port)) => (None, port),
        (address, Some(port)) => (Some(parse_address(address)?), port),
    };
    match parse_port(port)? {
        0 => Err("the guest's port cannot be 0".into()),
        port => Ok(ForwardTarget::Tcp { address, port }),
    }
}

/// What is before the first colon, or in the brackets of an IPv6 address, and what is behind it.
fn next_word(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or("`[` without `]`")?;
        let rest = rest.strip_prefix(':').ok_or("expected `:` behind `]`")?;
        return Ok((address, Some(rest)));
    }
    Ok(match text.split_once(':') {
        Some((word, rest)) => (word, Some(rest)),
        None => (text, None),
    })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a port, 0 to 65535"))
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    if text == "localhost" {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    text.parse()
        .map_err(|_| format!("{text:?} is not a literal address (IPv6 in brackets)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (String, String) {
        let forwarding: Forwarding = text.parse().unwrap();
        let local = match forwarding.local {
            LocalAddress::Tcp(address) => address.to_string(),
            LocalAddress::Unix(path) => format!("unix:{}", path.display()),
        };
        (local, forwarding.target.to_string())
    }

    #[test]
    fn forwardings_are_read_as_ssh_reads_them() {
        let rows = [
            ("8080", "127.0.0.1:8080", "port 8080"),
            ("8080:80", "127.0.0.1:8080", "port 80"),
            ("0:80", "127.0.0.1:0", "port 80"),
            ("8080:/run/app.sock", "127.0.0.1:8080", "/run/app.sock"),
            ("8080:unix:app.sock", "127.0.0.1:8080", "app.sock"),
            ("8080:localhost:80", "127.0.0.1:8080", "port 80"),
            ("8080:10.0.0.2:80", "127.0.0.1:8080", "10.0.0.2:80"),
            ("8080:[fe80::1]:80", "127.0.0.1:8080", "[fe80::1]:80"),
            ("0.0.0.0:8080:80", "0.0.0.0:8080", "port 80"),
            ("[::1]:8080:[::1]:80", "[::1]:8080", "[::1]:80"),
            ("unix:/tmp/x.sock:80", "unix:/tmp/x.sock", "port 80"),
            ("unix:/tmp/x.sock:/run/y", "unix:/tmp/x.sock", "/run/y"),
        ];
        for (text, local, target) in rows {
            assert_eq!(parse(text), (local.into(), target.into()), "{text}");
        }
    }

    #[test]
    fn what_is_no_forwarding_is_refused() {
        let wrong = [
            "",
            "0",
            "x",
            "/run/app.sock",
            "8080:",
            "8080:0",
            "8080:65536",
            "8080:example.com:80",
            "::1:80",
            "[::1:80",
            "[::1]",
            "host:8080:80",
            "unix:",
            "unix:/tmp/x.sock",
            "unix::80",
            "unix:/tmp/x.sock:unix:",
        ];
        for text in wrong {
            assert!(text.parse::<Forwarding>().is_err(), "{text:?}");
        }
    }
}
