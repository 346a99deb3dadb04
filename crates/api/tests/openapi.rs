//! The committed OpenAPI document is the one that the router declares.

use rackmem_agent_sim::SimAgent;

#[test]
fn the_committed_document_is_that_of_the_router() {
    let document = rackmem_api::agent::document::<SimAgent>().to_pretty_json().unwrap() + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/agent.json");
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(path, &document).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap();
    assert!(
        committed == document,
        "openapi/agent.json is not what the routes declare. If the API was meant to change, run \
         `UPDATE_OPENAPI=1 cargo nextest run -p rackmem-api --test openapi` and commit the document"
    );
}
