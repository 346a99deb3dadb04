//! Who asks a controller, and what they may: tokens with a role, a project and an end. Judges; reads no file and no clock.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, request::Parts};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::auth::{Identity, Token};
use crate::error::ApiError;
use crate::problem::{Problem, ProblemType};

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    Admin,
    /// Reserve for one project, and look.
    Member,
    /// Register bricks and look how one is, and nothing else: what a brick announces itself with.
    Join,
    /// Ask for more far memory for the machines of one compute brick, and give it back. The token's name is the brick's.
    Agent,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Join => "join",
            Self::Agent => "agent",
        })
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// For the record.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// The project that a member belongs to.
    pub project: Option<String>,
}

impl Who {
    /// Refuses everybody but administrators.
    pub fn admin(&self) -> Result<(), Problem> {
        self.one_of(&[Role::Admin])
    }

    /// Refuses who may not register bricks.
    pub fn registrar(&self) -> Result<(), Problem> {
        self.one_of(&[Role::Admin, Role::Join])
    }

    /// Refuses who may not look at a single brick: one that announces itself sees whether it is registered already.
    pub fn acquaintance(&self) -> Result<(), Problem> {
        self.one_of(&[Role::Admin, Role::Member, Role::Join])
    }

    /// Refuses who may not look and reserve.
    pub fn user(&self) -> Result<(), Problem> {
        self.one_of(&[Role::Admin, Role::Member])
    }

    /// Refuses who may not ask for a machine's memory in the name of its brick.
    pub fn borrower(&self) -> Result<(), Problem> {
        self.one_of(&[Role::Admin, Role::Agent])
    }

    /// Whether they may see what the machines and operations of others are like: who only announces or borrows may not.
    pub fn looks(&self) -> bool {
        matches!(self.role, Role::Admin | Role::Member)
    }

    /// The project that a request for `asked` counts against.
    pub fn project(&self, asked: Option<&str>) -> Result<String, Problem> {
        match (&self.project, asked) {
            (Some(own), Some(asked)) if own != asked => Err(Problem::new(
                ProblemType::Forbidden,
                format!("'{}' belongs to the project '{own}' and may not reserve for '{asked}'", self.name),
            )),
            (Some(own), _) => Ok(own.clone()),
            (None, asked) => Ok(asked.unwrap_or(PROJECT_DEFAULT).to_owned()),
        }
    }

    /// Whether they may see what belongs to `project`.
    pub fn sees(&self, project: &str) -> bool {
        self.project.as_deref().is_none_or(|own| own == project)
    }

    fn one_of(&self, roles: &[Role]) -> Result<(), Problem> {
        if roles.contains(&self.role) {
            return Ok(());
        }
        let needed: Vec<_> = roles.iter().rev().map(Role::to_string).collect();
        let detail = format!(
            "'{}' has the role {}, which is too small for this: ask with a token of the role {}",
            self.name,
            self.role,
            needed.join(" or ")
        );
        Err(Problem::new(ProblemType::Forbidden, detail))
    }
}

/// The project of those who name none.
const PROJECT_DEFAULT: &str = "default";

impl<S: Sync> FromRequestParts<S> for Who {
    type Rejection = Problem;

    /// Whom the router found out; where it asks for no tokens, whoever the server let in is an administrator.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let known = parts.extensions.get::<Self>().cloned();
        Ok(known.unwrap_or_else(|| Self {
            name: Identity::of(parts).to_string(),
            role: Role::Admin,
            project: None,
        }))
    }
}

/// When the token ends by which a request was let in: what goes on for long ends then, too.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenEnd(Option<Instant>);

impl TokenEnd {
    /// The end of a token that expires then; `now_ms` is now.
    pub fn new(expires_ms: Option<u64>, now_ms: u64) -> Self {
        let left = expires_ms.map(|expires| Duration::from_millis(expires.saturating_sub(now_ms)));
        Self(left.and_then(|left| Instant::now().checked_add(left)))
    }

    /// Waits for it; for ever where there is none.
    pub async fn wait(self) {
        match self.0 {
            Some(end) => tokio::time::sleep_until(end).await,
            None => std::future::pending().await,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for TokenEnd {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or_default())
    }
}

/// A token as its file has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenEntry {
    /// Whose it is.
    pub name: String,
    /// The secret, at least 16 characters.
    pub token: String,
    /// What its owner may do.
    pub role: Role,
    /// The project of a member.
    #[serde(default)]
    pub project: Option<String>,
    /// When it ends, milliseconds since 1970.
    #[serde(default)]
    pub expires_ms: Option<u64>,
}

/// All tokens that a controller knows. The secrets themselves are not kept.
#[derive(Clone, Debug, Default)]
pub struct Tokens(Vec<(Token, Who, Option<u64>)>);

impl Tokens {
    /// Reads the content of a token file: a JSON list of [`TokenEntry`].
    pub fn read(text: &str) -> Result<Self, ApiError> {
        let entries: Vec<TokenEntry> =
            serde_json::from_str(text).map_err(|error| ApiError::TokenFile(error.to_string()))?;
        let mut tokens: Vec<(Token, Who, Option<u64>)> = Vec::with_capacity(entries.len());
        for TokenEntry { name, token, role, project, expires_ms } in entries {
            if role == Role::Member && project.is_none() {
                return Err(ApiError::TokenFile(format!("'{name}' is a member and has no project")));
            }
            if role != Role::Member && project.is_some() {
                return Err(ApiError::TokenFile(format!(
                    "'{name}' has the role {role} and a project, which only members have: leave project out, or make it a member"
                )));
            }
            // Whose request it was could not be told afterwards.
            let text = token.trim_end();
            if let Some((_, other, _)) =
                tokens.iter().find(|(known, who, _)| who.name == name || known.is(text))
            {
                return Err(ApiError::TokenFile(match other.name == name {
                    true => format!("the name '{name}' is there twice: give each token a name of its own"),
                    false => format!("'{}' and '{name}' have the same secret: give each its own", other.name),
                }));
            }
            let token = Token::new(text)
                .map_err(|error| ApiError::TokenFile(format!("in the entry '{name}' {error}")))?;
            tokens.push((token, Who { name, role, project }, expires_ms));
        }
        Ok(Self(tokens))
    }

    /// Whether somebody has this role.
    pub fn has(&self, role: Role) -> bool {
        self.0.iter().any(|(_, who, _)| who.role == role)
    }

    /// When somebody's token ends, milliseconds since 1970.
    pub fn expiry(&self, of: &Who) -> Option<u64> {
        // No two have the same name.
        self.0.iter().find(|(_, who, _)| who.name == of.name).and_then(|(_, _, expires)| *expires)
    }

    /// Whose token a request carries. All are compared, so that the time says nothing about which one came near.
    pub fn judge(&self, headers: &HeaderMap, now_ms: u64) -> Result<Who, Problem> {
        let refuse = |detail: &str| Problem::new(ProblemType::Unauthenticated, detail);
        let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or_else(|| {
            refuse("a token is required: give --token-file, or send 'Authorization: Bearer TOKEN'")
        })?;
        let text = match value.split_once(' ') {
            Some((scheme, text)) if scheme.eq_ignore_ascii_case("bearer") => text.trim(),
            _ => return Err(refuse("the header Authorization has to read 'Bearer TOKEN'")),
        };
        let found =
            self.0.iter().fold(None, |found, entry| if entry.0.is(text) { Some(entry) } else { found });
        let (_, who, expires) =
            found.ok_or_else(|| refuse("the token is wrong: ask the administrator for one"))?;
        if expires.is_some_and(|expires| expires <= now_ms) {
            return Err(refuse("the token has expired: ask the administrator for a new one"));
        }
        Ok(who.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        Tokens::read(
            r#"[{"name":"root","token":"0123456789abcdef","role":"admin"},
                {"name":"alice","token":"abcdef0123456789","role":"member","project":"p1","expires_ms":1000}]"#,
        )
        .unwrap()
    }

    fn bearer(token: &str) -> HeaderMap {
        [(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn tokens_have_an_owner_and_an_end() {
        let who = tokens().judge(&bearer("abcdef0123456789"), 999).unwrap();
        assert_eq!((who.name.as_str(), who.role), ("alice", Role::Member));
        for (token, now, words) in [("abcdef0123456789", 1000, "expired"), ("abcdef012345678X", 0, "wrong")] {
            let problem = tokens().judge(&bearer(token), now).unwrap_err();
            assert_eq!((problem.status, problem.detail.contains(words)), (401, true), "{problem}");
        }
        assert_eq!(tokens().judge(&HeaderMap::new(), 0).unwrap_err().status, 401);
    }

    #[test]
    fn a_role_that_is_too_small_is_refused() {
        let alice = tokens().judge(&bearer("abcdef0123456789"), 0).unwrap();
        assert_eq!(alice.admin().unwrap_err().status, 403);
        assert!(alice.user().is_ok());
        assert_eq!(alice.project(Some("p2")).unwrap_err().status, 403);
        assert_eq!(alice.project(None).unwrap(), "p1");
    }

    #[test]
    fn the_same_name_or_secret_twice_is_a_mistake() {
        let file = |name: &str, token: &str| {
            let text = format!(
                r#"[{{"name":"root","token":"0123456789abcdef","role":"admin"}},{{"name":"{name}","token":"{token}","role":"join"}}]"#
            );
            Tokens::read(&text).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(file("new", "0123456789abcdeX"), Ok(()));
        assert!(file("root", "0123456789abcdeX").unwrap_err().contains("'root' is there twice"));
        for same in ["0123456789abcdef", r"0123456789abcdef\n"] {
            assert!(
                file("new", same).unwrap_err().contains("'root' and 'new' have the same secret"),
                "{same}"
            );
        }
    }

    #[test]
    fn a_token_that_is_too_short_is_named_by_its_entry() {
        let text = r#"[{"name":"bob","token":"x","role":"admin"}]"#;
        let error = Tokens::read(text).unwrap_err().to_string();
        assert!(error.contains("in the entry 'bob' the token has 1 bytes"), "{error}");
    }

    #[test]
    fn the_roles_that_may_are_named() {
        let alice = tokens().judge(&bearer("abcdef0123456789"), 0).unwrap();
        let told = |refused: Result<(), Problem>| refused.unwrap_err().detail;
        assert!(told(alice.registrar()).ends_with("a token of the role join or admin"));
        assert!(told(alice.admin()).ends_with("a token of the role admin"));
    }

    #[test]
    fn a_member_without_a_project_is_a_mistake() {
        let text = r#"[{"name":"bob","token":"0123456789abcdef","role":"member"}]"#;
        assert!(Tokens::read(text).unwrap_err().to_string().contains("bob"));
    }

    #[test]
    fn a_project_of_somebody_who_is_no_member_is_a_mistake() {
        for role in ["admin", "join", "agent"] {
            let text =
                format!(r#"[{{"name":"eve","token":"0123456789abcdef","role":"{role}","project":"p1"}}]"#);
            let refusal = Tokens::read(&text).unwrap_err().to_string();
            assert!(refusal.contains("'eve'") && refusal.contains(role), "{refusal}");
        }
    }
}
