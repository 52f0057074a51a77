//! The API's own description, made of the table that routes it: `GET /openapi.json`.

use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, HttpMethod, InfoBuilder, OpenApi, OpenApiBuilder, PathItem,
    PathsBuilder, Ref, RefOr, Required, ResponseBuilder, ResponsesBuilder, SecurityRequirement,
    path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn},
    request_body::RequestBodyBuilder,
    schema::{ObjectBuilder, Schema, Type},
    security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use super::{
    error::Code,
    guard::{TOKEN_HEADER, USER_HEADERS},
    table::{Route, Shape},
};
use crate::sessions::Reach;

/// Security schemes by name.
const BEARER: &str = "bearer";
const TOKEN: &str = "accessToken";

/// Of all routes.
pub(super) fn document(routes: &[Route]) -> OpenApi {
    let mut paths = PathsBuilder::new();
    let mut components = ComponentsBuilder::new()
        .security_scheme(
            BEARER,
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()),
        )
        .security_scheme(
            TOKEN,
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(TOKEN_HEADER.as_str()))),
        )
        .schema("Error", error_schema());
    for route in routes {
        for shape in route
            .takes
            .iter()
            .chain(&route.answers)
            .chain(&route.speaks)
        {
            components = components.schema(shape.name.clone(), shape.schema.clone());
            for (name, schema) in &shape.others {
                components = components.schema(name.clone(), schema.clone());
            }
        }
        paths = paths.path(
            route.path,
            PathItem::new(http_method(route), operation(route)),
        );
    }
    let info = InfoBuilder::new()
        .title("Guestline gateway")
        .description(Some(
            "Client sessions: tokens that reach only the VMs and Linux users they were granted. The contract of the \
             freestyle-sandboxes package, and more: raw-files, exec as a WebSocket, external-vms, audit, metrics.",
        ))
        .version(env!("CARGO_PKG_VERSION"));
    OpenApiBuilder::new()
        .info(info.build())
        .paths(paths.build())
        .components(Some(components.build()))
        .build()
}

fn operation(route: &Route) -> Operation {
    let mut operation = OperationBuilder::new().summary(Some(route.summary));
    for name in placeholders(route.path) {
        operation = operation.parameter(parameter(&name, ParameterIn::Path, Required::True));
    }
    for name in route.query {
        operation = operation.parameter(parameter(name, ParameterIn::Query, Required::False));
    }
    if let Some(verb) = route.verb {
        operation = operation.security(SecurityRequirement::new(BEARER, [""; 0]));
        if verb.reach() != Reach::Admin {
            operation = operation.security(SecurityRequirement::new(TOKEN, [""; 0]));
        }
        if verb.reach() == Reach::VmAsUser {
            let header = USER_HEADERS[0].as_str();
            operation =
                operation.parameter(parameter(header, ParameterIn::Header, Required::False));
        }
    }
    if let Some(shape) = &route.takes {
        let body = RequestBodyBuilder::new().content("application/json", json_of(shape));
        operation = operation.request_body(Some(body.build()));
    }
    if let Some(content_type) = route.takes_bytes {
        let body = RequestBodyBuilder::new().content(content_type, bytes());
        operation = operation.request_body(Some(body.build()));
    }
    if let [first, said, told] = &route.speaks[..] {
        let text = format!(
            "A WebSocket. Text messages are JSON: the client's first is {}, its others {}; the gateway's are {}, or an \
             Error with the type `failed`. Binary messages are bytes of stdin; from the gateway a byte 1 for stdout or 2 \
             for stderr, then what was written.",
            first.name, said.name, told.name
        );
        operation = operation.description(Some(text));
    }
    let mut success = ResponseBuilder::new().description("Success");
    if let Some(shape) = &route.answers {
        success = success.content("application/json", json_of(shape));
    }
    if let Some(content_type) = route.answers_bytes {
        success = success.content(content_type, bytes());
    }
    let failure = ResponseBuilder::new().description("Any failure").content(
        "application/json",
        ContentBuilder::new()
            .schema(Some(RefOr::<Schema>::Ref(Ref::from_schema_name("Error"))))
            .build(),
    );
    let responses = ResponsesBuilder::new()
        .response(
            if route.speaks.is_empty() {
                "200"
            } else {
                "101"
            },
            success.build(),
        )
        .response("default", failure.build());
    operation.responses(responses.build()).build()
}

/// Of any length.
fn bytes() -> utoipa::openapi::Content {
    let text = ObjectBuilder::new().schema_type(Type::String);
    ContentBuilder::new().schema(Some(text)).build()
}

fn json_of(shape: &Shape) -> utoipa::openapi::Content {
    let schema = RefOr::<Schema>::Ref(Ref::from_schema_name(&shape.name));
    ContentBuilder::new().schema(Some(schema)).build()
}

/// Some errors have more fields.
fn error_schema() -> Schema {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let codes = Code::ALL.iter().map(|code| code.as_str());
    let mut object = ObjectBuilder::new();
    for name in ["code", "error"] {
        let code = text().enum_values(Some(codes.clone()));
        object = object.property(name, code).required(name);
    }
    for name in ["message", "description"] {
        object = object.property(name, text()).required(name);
    }
    Schema::Object(object.build())
}

fn parameter(name: &str, place: ParameterIn, required: Required) -> Parameter {
    let text = ObjectBuilder::new().schema_type(Type::String);
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .schema(Some(text))
        .build()
}

fn placeholders(path: &str) -> Vec<String> {
    let inner = |part: &str| part.strip_prefix('{')?.strip_suffix('}').map(str::to_owned);
    path.split('/').filter_map(inner).collect()
}

fn http_method(route: &Route) -> HttpMethod {
    match route.method.as_str() {
        "POST" => HttpMethod::Post,
        "PUT" => HttpMethod::Put,
        "DELETE" => HttpMethod::Delete,
        "PATCH" => HttpMethod::Patch,
        _ => HttpMethod::Get,
    }
}
