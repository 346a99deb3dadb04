//! Many agents behind one router: `/agents/{agent}/v1/…`.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::http::header::LOCATION;
use axum::http::uri::PathAndQuery;
use axum::response::{IntoResponse, Response};
use tower::ServiceExt;

use super::served::Served;
use crate::agent::AgentApi;
use crate::problem::{Problem, ProblemType};

/// The APIs of many agents; `find` finds one by the name in the path.
pub fn fleet<T, F>(find: F) -> Router
where
    T: AgentApi,
    F: Fn(&str) -> Option<Arc<T>> + Clone + Send + Sync + 'static,
{
    let inner = super::routes::<T>();
    Router::new().fallback_service(tower::service_fn(move |request: Request| {
        let (find, inner) = (find.clone(), inner.clone());
        async move { Ok::<_, Infallible>(answer(request, &find, inner).await) }
    }))
}

async fn answer<T: AgentApi>(
    mut request: Request,
    find: &(impl Fn(&str) -> Option<Arc<T>> + Sync),
    inner: Router,
) -> Response {
    let Some((name, uri)) = split(request.uri()) else {
        return Problem::new(ProblemType::NotFound, "there is nothing here: ask /agents/NAME/v1/…")
            .into_response();
    };
    let Some(agent) = find(&name) else { return Problem::not_found("agent", name).into_response() };
    *request.uri_mut() = uri;
    request.extensions_mut().insert(Served(agent));
    let mut response = inner.oneshot(request).await.into_response();
    // Places in answers are below the prefix as well.
    let place = response.headers().get(LOCATION).and_then(|place| place.to_str().ok());
    let place = place.and_then(|place| format!("/agents/{name}{place}").parse().ok());
    if let Some(place) = place {
        response.headers_mut().insert(LOCATION, place);
    }
    response
}

/// Takes `/agents/NAME` off.
fn split(uri: &Uri) -> Option<(String, Uri)> {
    let rest = uri.path().strip_prefix("/agents/")?;
    let (name, _) = rest.split_once('/')?;
    let skip = "/agents/".len() + name.len();
    let rest: PathAndQuery = uri.path_and_query()?.as_str().get(skip..)?.parse().ok()?;
    Some((name.to_owned(), Uri::from(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_goes_and_the_query_stays() {
        let (name, uri) = split(&"/agents/b17/v1/operations?limit=1".parse().unwrap()).unwrap();
        assert_eq!((name.as_str(), uri.to_string().as_str()), ("b17", "/v1/operations?limit=1"));
        for path in ["/", "/agents/b17", "/v1/host", "/agents"] {
            assert!(split(&path.parse().unwrap()).is_none(), "{path}");
        }
    }
}
