//! `pilothouse token`: API tokens of one's own.

use std::time::Duration;

use api_types::{CreateToken, CreatedToken, Token};
use clap::{Args, Subcommand};

use crate::client::Call;
use crate::error::Result;
use crate::session::{Session, given};
use crate::{Format, Globals, Noun, duration, output};

/// What can be done with API tokens.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create an API token and print its secret, once
    Create(Create),
    /// List your API tokens
    List,
    /// Revoke an API token; it stops working at once
    Revoke {
        /// Name or ID
        token: String,
    },
}

/// What a new token may do.
#[derive(Args, Debug)]
pub struct Create {
    /// Name
    pub name: String,
    /// Role: owner, admin, editor or viewer; at most your own [default: your own]
    #[arg(long)]
    pub role: Option<String>,
    /// Lifetime: 24h, 30d; at most 365d, or what is left of the token in use [default: 90d, or what is left]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub expires_in: Option<Duration>,
}

/// Runs one verb.
pub async fn run(noun: Noun<Verb>) -> Result<()> {
    let session = Session::open(&noun.globals)?;
    match noun.verb {
        Verb::Create(create) => make(&session, &noun.globals, create).await,
        Verb::List => session.output.items(session.client.list::<Token>("/me/tokens", &[]).await?),
        Verb::Revoke { token } => {
            let id = session.token_id(&token).await?;
            session.client.send_only(Call::delete(format!("/tokens/{id}"))).await?;
            session.progress.say(&format!("Token {token} revoked"));
            Ok(())
        }
    }
}

async fn make(session: &Session, globals: &Globals, create: Create) -> Result<()> {
    let request = CreateToken {
        name: create.name,
        organization: given(&globals.org).map(str::to_owned),
        role: create.role,
        expires_in_seconds: create.expires_in.map(|time| time.as_secs()),
    };
    let created: CreatedToken = session.client.send(Call::post("/me/tokens", &request)?).await?;
    match session.output {
        Format::Table => {
            session
                .progress
                .say(&format!("Token {} ({}); its secret is shown only once:", created.token.name, created.token.id));
            output::print(&format!("{}\n", created.secret))
        }
        Format::Name => session.output.item(&created.token),
        other => other.document(&created),
    }
}
