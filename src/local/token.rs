//! Who may do what: the refresh token, the access tokens that it buys, and the
//! roles behind them.
//!
//! An access token looks like a JWT and means nothing: what it stands for is
//! kept here, so that none can be forged.

use super::reply::Reply;
use std::fs::File;
use std::io::{self, Read as _};
use std::time::{Duration, Instant};

/// How long an access token lives.
pub(super) const LIFETIME: Duration = Duration::from_secs(600);

/// How much longer one is taken, for clocks that differ (`JWT_LEEWAY`).
const LEEWAY: Duration = Duration::from_secs(5);

/// How many access tokens are remembered; far more than one agent gets in a
/// token's lifetime.
const REMEMBERED: usize = 4096;

/// Whom an endpoint serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody; nobody is asked.
    Open,
    /// Whoever has a role.
    AnyRole,
    /// Agents.
    Agents,
    /// Those who keep the agents' records: agents, and people in charge.
    Keepers,
    /// People.
    Users,
}

/// What a request's `Authorization` makes its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Agent,
    Contributor,
    Nobody,
}

/// The tokens given out.
#[derive(Debug)]
pub(super) struct Tokens {
    refresh: String,
    revoked: bool,
    issued: Vec<(String, Instant)>,
}

impl Tokens {
    /// A new refresh token, and nothing bought with it yet.
    pub(super) fn new() -> io::Result<Tokens> {
        Ok(Tokens {
            refresh: random_text(64)?,
            revoked: false,
            issued: Vec::new(),
        })
    }

    pub(super) fn refresh_token(&self) -> &str {
        &self.refresh
    }

    /// From now on the refresh token buys nothing.
    pub(super) fn revoke(&mut self) {
        self.revoked = true;
    }

    /// Ends the life of every access token.
    pub(super) fn expire(&mut self, now: Instant) {
        for (_, end) in &mut self.issued {
            *end = now;
        }
    }

    /// No access token is recognised any longer, as after a change of the key
    /// that signs them.
    pub(super) fn forget(&mut self) {
        self.issued.clear();
    }

    /// Sells an access token.
    pub(super) fn buy(&mut self, refresh: &str, now: Instant) -> Result<String, Reply> {
        if refresh != self.refresh {
            return Err(Reply::abort(400, "Invalid refresh token."));
        }
        if self.revoked {
            return Err(Reply::abort(400, "Refresh token revoked."));
        }
        let parts = [36, 180, 43].map(random_text);
        let [Ok(head), Ok(claims), Ok(signature)] = parts else {
            return Err(Reply::unhandled(&"no randomness"));
        };
        let token = format!("{head}.{claims}.{signature}");
        if self.issued.len() == REMEMBERED {
            self.issued.remove(0);
        }
        self.issued.push((token.clone(), now + LIFETIME + LEEWAY));
        Ok(token)
    }

    /// Refuses whom the endpoint does not serve.
    pub(super) fn admit(
        &self,
        access: Access,
        authorization: Option<&str>,
        now: Instant,
    ) -> Result<(), Reply> {
        if access == Access::Open {
            return Ok(());
        }
        let role = self.role(authorization.unwrap_or_default(), now)?;
        let (served, roles) = match access {
            Access::Open | Access::AnyRole => {
                (role != Role::Nobody, "admin, manager, contributor, agent")
            }
            Access::Agents => (role == Role::Agent, "agent"),
            Access::Keepers => (role == Role::Agent, "admin, manager, agent"),
            Access::Users => (role == Role::Contributor, "admin, manager, contributor"),
        };
        if served {
            return Ok(());
        }
        let message = format!("Specified action requires role: {roles}");
        Err(Reply::abort(403, &message))
    }

    fn role(&self, authorization: &str, now: Instant) -> Result<Role, Reply> {
        if authorization.is_empty() {
            return Ok(Role::Contributor);
        }
        let Some(token) = authorization.strip_prefix("Bearer ") else {
            return Ok(Role::Nobody);
        };
        match self.issued.iter().rev().find(|(known, _)| known == token) {
            None => Err(Reply::abort(403, "Invalid Token")),
            Some((_, end)) if *end <= now => Err(Reply::abort(401, "Token has expired")),
            Some(_) => Ok(Role::Agent),
        }
    }
}

/// Characters for URLs that nobody can guess.
fn random_text(length: usize) -> io::Result<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = vec![0; length];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let letter = |byte: &u8| char::from(ALPHABET[usize::from(byte & 63)]);
    Ok(bytes.iter().map(letter).collect())
}

/// A random identifier (RFC 9562, version 4).
pub(super) fn uuid4() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&at) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_bought_and_end() {
        let now = Instant::now();
        let mut tokens = Tokens::new().unwrap();
        let refresh = tokens.refresh_token().to_owned();
        assert_eq!(refresh.len(), 64);
        assert_eq!(tokens.buy("x", now).unwrap_err().status, 400);
        let bearer = format!("Bearer {}", tokens.buy(&refresh, now).unwrap());
        let admit = |tokens: &Tokens, access, header, now| {
            let admitted = tokens.admit(access, header, now);
            admitted.err().map_or(200, |reply| reply.status)
        };
        for (access, header, status) in [
            (Access::Agents, Some(bearer.as_str()), 200),
            (Access::AnyRole, Some(bearer.as_str()), 200),
            (Access::Users, Some(bearer.as_str()), 403),
            (Access::Users, None, 200),
            (Access::AnyRole, None, 200),
            (Access::Agents, None, 403),
            (Access::Keepers, None, 403),
            (Access::AnyRole, Some("Basic eDp4"), 403),
            (Access::AnyRole, Some("Bearer x.y.z"), 403),
            (Access::Open, Some("Bearer x.y.z"), 200),
        ] {
            assert_eq!(
                admit(&tokens, access, header, now),
                status,
                "{access:?} {header:?}"
            );
        }
        let agent = |tokens: &Tokens, now| admit(tokens, Access::Agents, Some(&bearer), now);
        assert_eq!(agent(&tokens, now + LIFETIME), 200);
        assert_eq!(agent(&tokens, now + LIFETIME + LEEWAY), 401);
        tokens.expire(now);
        assert_eq!(agent(&tokens, now), 401);
        tokens.forget();
        assert_eq!(agent(&tokens, now), 403);
        tokens.revoke();
        assert_eq!(tokens.buy(&refresh, now).unwrap_err().status, 400);
    }

    #[test]
    fn identifiers_are_uuids() {
        let (one, other) = (uuid4().unwrap(), uuid4().unwrap());
        assert!(super::super::formats::is_uuid(&one) && one.len() == 36);
        assert_eq!(one.get(14..15), Some("4"));
        assert_ne!(one, other);
    }
}
