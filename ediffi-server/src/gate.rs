//! Who is let in: the same for all interfaces, each of which says in its own words who is not.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use crate::refusal::Refusal;
use crate::service::Service;

/// Lets in who has a token, and tells the handlers whose it is.
pub(crate) async fn authenticate<Refused: From<Refusal>>(
    State(service): State<Service>,
    mut request: Request,
    next: Next,
) -> Result<Response, Refused> {
    let client = service.tokens.of(&request)?;
    request.extensions_mut().insert(client);
    Ok(next.run(request).await)
}
