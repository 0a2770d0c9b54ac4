//! The routes, and the document that describes them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

const DOCUMENT: &str = include_str!("../../../docs/openapi.json");

#[test]
fn the_openapi_document_has_exactly_the_routes_methods_and_scopes() {
    let document: Value = serde_json::from_str(DOCUMENT).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let mut documented = BTreeSet::new();
    for (path, methods) in paths {
        for (method, operation) in
            methods.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters")
        {
            let security = operation["security"].as_array().unwrap();
            let scopes = security.iter().flat_map(|one| one["token"].as_array().unwrap());
            let scopes: BTreeSet<_> = scopes.map(|scope| scope.as_str().unwrap().to_owned()).collect();
            documented.insert((path.clone(), method.to_ascii_uppercase(), scopes));
        }
    }
    let routes = ROUTES.iter().map(|route| {
        let scopes =
            route.scopes.iter().chain([&Scope::Admin]).map(|scope| scope.as_str().to_owned()).collect();
        (route.path.to_owned(), route.method.to_owned(), scopes)
    });
    assert_eq!(documented, routes.collect());
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}
