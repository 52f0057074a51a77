//! The table of routes. A route enters it with its verb, and leaves it behind the guard: there is no other way in. The
//! OpenAPI document and the test that walks all routes are made from it.

use std::sync::{Arc, OnceLock};

use axum::{
    Json, Router,
    extract::{Request, State},
    handler::Handler,
    http::Method,
    middleware::from_fn_with_state,
    response::Response,
    routing::{MethodFilter, on},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{OpenApi, RefOr, Schema},
};

use super::{
    app::App,
    error::Code,
    guard::{Gate, guard, nowhere},
    openapi::document,
};
use crate::sessions::Verb;

/// What is known of a route besides its handler.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    /// None: it answers without a credential.
    pub(crate) verb: Option<Verb>,
    pub(crate) summary: &'static str,
    pub(crate) takes: Option<Shape>,
    pub(crate) answers: Option<Shape>,
    /// Names of the parameters of its query.
    pub(crate) query: &'static [&'static str],
    /// The content type of a body that is no JSON, and of such an answer.
    pub(crate) takes_bytes: Option<&'static str>,
    pub(crate) answers_bytes: Option<&'static str>,
    /// Where it is a WebSocket: what is said on it.
    pub(crate) speaks: Vec<Shape>,
}

/// A JSON body's name and schema, and the schemas that it refers to.
#[derive(Clone)]
pub(crate) struct Shape {
    pub(crate) name: String,
    pub(crate) schema: RefOr<Schema>,
    pub(crate) others: Vec<(String, RefOr<Schema>)>,
}

impl Shape {
    fn of<T: ToSchema>() -> Self {
        let mut others = Vec::new();
        T::schemas(&mut others);
        Self {
            name: T::name().into_owned(),
            schema: <T as PartialSchema>::schema(),
            others,
        }
    }
}

impl Route {
    /// The body that it wants.
    pub(crate) fn takes<T: ToSchema>(&mut self) -> &mut Self {
        self.takes = Some(Shape::of::<T>());
        self
    }

    /// The body of a 200.
    pub(crate) fn answers<T: ToSchema>(&mut self) -> &mut Self {
        self.answers = Some(Shape::of::<T>());
        self
    }

    /// The parameters of its query.
    pub(crate) fn query(&mut self, names: &'static [&'static str]) -> &mut Self {
        self.query = names;
        self
    }

    /// A body that is no JSON.
    pub(crate) fn takes_bytes(&mut self, content_type: &'static str) -> &mut Self {
        self.takes_bytes = Some(content_type);
        self
    }

    /// An answer that is no JSON.
    pub(crate) fn answers_bytes(&mut self, content_type: &'static str) -> &mut Self {
        self.answers_bytes = Some(content_type);
        self
    }

    /// It is a WebSocket: the client's first message, its others, and the gateway's.
    pub(crate) fn speaks<S: ToSchema, W: ToSchema, T: ToSchema>(&mut self) -> &mut Self {
        self.speaks = vec![Shape::of::<S>(), Shape::of::<W>(), Shape::of::<T>()];
        self
    }
}

/// All routes.
pub(crate) struct Table {
    app: App,
    router: Router<App>,
    routes: Vec<Route>,
}

impl Table {
    pub(crate) fn new(app: App) -> Self {
        Self {
            app,
            router: Router::new(),
            routes: Vec::new(),
        }
    }

    /// A route behind the guard.
    pub(crate) fn add<H, T>(
        &mut self,
        method: Method,
        path: &'static str,
        verb: Verb,
        summary: &'static str,
        handler: H,
    ) -> &mut Route
    where
        H: Handler<T, App>,
        T: 'static,
    {
        let names_vm = path.starts_with("/v1/vms/{vm_id}");
        let gate = Gate {
            app: self.app.clone(),
            verb,
            names_vm,
        };
        let guarded = on(filter(&method), handler).layer(from_fn_with_state(gate, guard));
        self.push(method, path, Some(verb), summary, guarded)
    }

    /// A route for everybody: it must tell nothing that is anybody's.
    pub(crate) fn add_public<H, T>(
        &mut self,
        path: &'static str,
        summary: &'static str,
        handler: H,
    ) -> &mut Route
    where
        H: Handler<T, App>,
        T: 'static,
    {
        self.push(
            Method::GET,
            path,
            None,
            summary,
            on(MethodFilter::GET, handler),
        )
    }

    fn push(
        &mut self,
        method: Method,
        path: &'static str,
        verb: Option<Verb>,
        summary: &'static str,
        handler: axum::routing::MethodRouter<App>,
    ) -> &mut Route {
        self.router = std::mem::take(&mut self.router).route(path, handler);
        let at = self.routes.len();
        self.routes.push(Route {
            method,
            path,
            verb,
            summary,
            takes: None,
            answers: None,
            query: &[],
            takes_bytes: None,
            answers_bytes: None,
            speaks: Vec::new(),
        });
        &mut self.routes[at]
    }

    /// What the table holds, and the router that serves it.
    ///
    /// One more public route, `/openapi.json`, describes them all.
    pub(crate) fn finish(mut self) -> (Vec<Route>, Router) {
        let description = Arc::<OnceLock<OpenApi>>::default();
        let shown = description.clone();
        self.add_public("/openapi.json", "This description", async move || {
            Json(shown.get().cloned())
        });
        // The document is only made now that the table is whole.
        let _ = description.set(document(&self.routes));
        let missing = |state: State<App>, request: Request| nowhere(state, request, Code::NotFound);
        let other_method =
            |state: State<App>, request: Request| nowhere(state, request, Code::MethodNotAllowed);
        let router: Router<App> = self
            .router
            .fallback(missing)
            .method_not_allowed_fallback(other_method);
        (self.routes, router.with_state(self.app))
    }
}

fn filter(method: &Method) -> MethodFilter {
    MethodFilter::try_from(method.clone()).expect("a method that axum routes")
}

/// An endpoint's future is an answer or an error, both of which are responses.
pub(crate) type Answer = Result<Response, super::error::ApiError>;
