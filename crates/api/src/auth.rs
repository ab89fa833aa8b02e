//! The way in: no token, no answer; a missing scope, no handler. Bodies are not read before.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::MethodRouter;
use subtle::{Choice, ConstantTimeEq as _};

use crate::Api;
use crate::error::Problem;
use crate::token::{self, Scope, Token};

/// Who calls: the token that was sent.
#[derive(Debug, Clone)]
pub(crate) struct Caller(Arc<Token>);

impl Caller {
    /// The token's name.
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }
}

/// Lets a request in whose token is known and has not expired, and logs its outcome.
pub(crate) async fn authenticate(
    State(api): State<Api>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    // The pattern, not the path: ids and what somebody typed stay out of the logs.
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let (caller, response) = match caller(&api, request.headers()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller.clone());
            (Some(caller), next.run(request).await)
        }
        Err(problem) => (None, problem.into_response()),
    };
    tracing::info!(
        http.method = %method,
        http.route = route.as_deref().unwrap_or("unknown"),
        http.status = response.status().as_u16(),
        token = caller.as_ref().map(Caller::name),
        duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "request answered"
    );
    response
}

/// The same routes, for callers with `scope` only.
pub(crate) fn needs(scope: Scope, routes: MethodRouter<Api>) -> MethodRouter<Api> {
    routes.route_layer(middleware::from_fn_with_state(scope, check))
}

/// Lets a request through whose caller has the scope.
async fn check(
    State(scope): State<Scope>,
    caller: Option<Extension<Caller>>,
    request: Request,
    next: Next,
) -> Response {
    match caller {
        Some(Extension(caller)) if caller.0.allows(scope) => next.run(request).await,
        Some(_) => Problem::forbidden(scope).into_response(),
        None => Problem::unauthorized("a token is needed").into_response(),
    }
}

/// Marks every answer as private, and as nothing but what its type says.
pub(crate) async fn seclude(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The caller whose token the request carries.
fn caller(api: &Api, headers: &HeaderMap) -> Result<Caller, Problem> {
    let secret = bearer(headers)
        .ok_or_else(|| Problem::unauthorized("send `Authorization: Bearer TOKEN`"))?;
    let token = find(&api.config().tokens, secret)
        .ok_or_else(|| Problem::unauthorized("the token is not known here"))?;
    if token.has_expired(api.now()) {
        return Err(Problem::unauthorized("the token has expired"));
    }
    Ok(Caller(Arc::new(token.clone())))
}

/// The secret in `Authorization: Bearer SECRET`; `None` for several headers or another scheme.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (only, None) = (values.next()?, values.next()) else { return None };
    let (scheme, secret) = only.to_str().ok()?.split_once(' ')?;
    let secret = secret.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !secret.is_empty()).then_some(secret)
}

/// The token of `secret`. All are compared in full, so the time tells nothing.
fn find<'a>(tokens: &'a [Token], secret: &str) -> Option<&'a Token> {
    let hash = token::hash(secret);
    let mut found = None;
    for token in tokens {
        let equal: Choice = token.sha256.ct_eq(&hash);
        if bool::from(equal) {
            found = Some(token);
        }
    }
    found
}
