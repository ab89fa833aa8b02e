//! `token`: makes secrets for the API and the webhook's path.

use rand::RngExt;
use sha2::{Digest, Sha256};

use crate::cli::Token;
use crate::config::hex;
use crate::output::say;

/// Does what was asked for.
pub(crate) fn run(command: &Token) {
    match command {
        Token::New => {
            let token = api::generate_token(rand::rng().random());
            let digest = hex(&Sha256::digest(token.as_bytes()));
            say(format!("token   {token}"));
            say(format!("sha256  {digest}"));
            say("");
            say("The token is shown once. Put the digest into the configuration:");
            say("");
            say("  [[api.tokens]]");
            say("  name = \"backend\"");
            say(format!("  sha256 = \"{digest}\""));
            say("  scopes = [\"sessions:read\", \"sessions:write\"]");
        }
    }
}
