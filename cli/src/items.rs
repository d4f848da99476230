//! `mcpgw tools|prompts|resources`: what the gateway publishes to a caller, one item in full, and using it.

mod printing;

use std::io::{self, Write};

use rmcp::model::{CallToolRequestParams, GetPromptRequestParams, ReadResourceRequestParams};
use serde_json::{Map, Value, json};

use printing::{content, contents, messages, table};

use crate::{
    endpoint::Target,
    output::{self, Format, OutputError},
    session::{Session, SessionError},
};

/// What to do with tools.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Tools {
    /// Lists the published tools.
    List(Common),
    /// Prints one tool's definition: description, arguments, annotations.
    Describe(Named),
    /// Calls a tool. Exit code 1 when the tool reports an error.
    Call(Using),
}

/// What to do with prompts.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Prompts {
    /// Lists the published prompts.
    List(Common),
    /// Prints one prompt's definition.
    Describe(Named),
    /// Gets a prompt with its arguments filled in.
    Get(Using),
}

/// What to do with resources.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Resources {
    /// Lists the published resources and resource templates.
    List(Common),
    /// Reads a resource by its URI.
    Read(Named),
}

/// Where, and how the answer is printed.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// Where.
    #[command(flatten)]
    pub target: Target,
    /// How the answer is printed.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// One item.
#[derive(Clone, Debug, clap::Args)]
pub struct Named {
    /// Published name (with prefix), or URI.
    pub name: String,
    /// Where and how.
    #[command(flatten)]
    pub common: Common,
}

/// One item with arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Using {
    /// Published name, with prefix.
    pub name: String,
    /// Arguments as `name=value`; a value that is JSON is taken as JSON, anything else as text.
    #[arg(value_name = "NAME=VALUE")]
    pub arguments: Vec<String>,
    /// Arguments as one JSON object; the others are put into it.
    #[arg(long, value_name = "OBJECT")]
    pub json: Option<String>,
    /// Where and how.
    #[command(flatten)]
    pub common: Common,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ItemsError {
    /// The session.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The arguments.
    #[error("{0}")]
    Arguments(String),
    /// No such item.
    #[error("{0}")]
    Unknown(String),
    /// The output.
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Tools {
    /// Asks and prints; the exit code is 1 when a tool reports an error.
    ///
    /// # Errors
    /// [`ItemsError`]; that is exit code 2.
    pub async fn run(&self, out: &mut impl Write) -> Result<u8, ItemsError> {
        match self {
            Self::List(common) => common.list(out, &common.ask(list_tools).await?),
            Self::Describe(named) => named.print(out, &named.common.ask(list_tools).await?, "tool"),
            Self::Call(using) => {
                let arguments = using.object()?;
                let parameters = CallToolRequestParams::new(using.name.clone()).with_arguments(arguments);
                let result = using
                    .common
                    .ask(async |session| {
                        session
                            .ask(async |service| service.call_tool(parameters).await)
                            .await
                            .map(|result| json!(result))
                    })
                    .await?;
                let failed = result.get("isError").and_then(Value::as_bool) == Some(true);
                using.common.print(out, &result, content)?;
                Ok(u8::from(failed))
            }
        }
    }
}

async fn list_tools(session: &Session) -> Result<Value, SessionError> {
    let tools = session
        .ask(async |service| service.list_all_tools().await)
        .await?;
    Ok(json!(tools))
}

async fn list_prompts(session: &Session) -> Result<Value, SessionError> {
    let prompts = session
        .ask(async |service| service.list_all_prompts().await)
        .await?;
    Ok(json!(prompts))
}

impl Prompts {
    /// As [`Tools::run`].
    ///
    /// # Errors
    /// [`ItemsError`]; that is exit code 2.
    pub async fn run(&self, out: &mut impl Write) -> Result<u8, ItemsError> {
        match self {
            Self::List(common) => common.list(out, &common.ask(list_prompts).await?),
            Self::Describe(named) => named.print(out, &named.common.ask(list_prompts).await?, "prompt"),
            Self::Get(using) => {
                let mut parameters = GetPromptRequestParams::new(using.name.clone());
                parameters.arguments = Some(using.object()?);
                let result = using
                    .common
                    .ask(async |session| {
                        session
                            .ask(async |service| service.get_prompt(parameters).await)
                            .await
                            .map(|result| json!(result))
                    })
                    .await?;
                using.common.print(out, &result, messages)
            }
        }
    }
}

impl Resources {
    /// As [`Tools::run`].
    ///
    /// # Errors
    /// [`ItemsError`]; that is exit code 2.
    pub async fn run(&self, out: &mut impl Write) -> Result<u8, ItemsError> {
        match self {
            Self::List(common) => {
                let found = common
                    .ask(async |session| {
                        let resources = session
                            .ask(async |service| service.list_all_resources().await)
                            .await?;
                        let templates = session
                            .ask(async |service| service.list_all_resource_templates().await)
                            .await?;
                        Ok(json!({"resources": resources, "resourceTemplates": templates}))
                    })
                    .await?;
                common.print(out, &found, |out, found| {
                    let mut all = found
                        .get("resources")
                        .and_then(Value::as_array)
                        .cloned()
                        .unwrap_or_default();
                    let templates = found.get("resourceTemplates").and_then(Value::as_array);
                    for template in templates.into_iter().flatten() {
                        let mut template = template.clone();
                        let uri = template.get("uriTemplate").cloned().unwrap_or_default();
                        if let Some(members) = template.as_object_mut() {
                            members.insert("uri".to_owned(), uri);
                        }
                        all.push(template);
                    }
                    table(out, &json!(all), &["uri", "name", "description"])
                })
            }
            Self::Read(named) => {
                let parameters = ReadResourceRequestParams::new(named.name.clone());
                let result = named
                    .common
                    .ask(async |session| {
                        session
                            .ask(async |service| service.read_resource(parameters).await)
                            .await
                            .map(|result| json!(result))
                    })
                    .await?;
                named.common.print(out, &result, contents)
            }
        }
    }
}

impl Common {
    /// One session around one question.
    async fn ask(
        &self,
        question: impl AsyncFnOnce(&Session) -> Result<Value, SessionError>,
    ) -> Result<Value, ItemsError> {
        let bar = output::spinner("Asking the gateway");
        let session = Session::open(&self.target, bar.clone()).await?;
        let answer = question(&session).await;
        session.close().await;
        bar.finish_and_clear();
        Ok(answer?)
    }

    /// Prints what has a name, a title and a description.
    fn list(&self, out: &mut impl Write, all: &Value) -> Result<u8, ItemsError> {
        self.print(out, all, |out, all| {
            table(out, all, &["name", "title", "description"])
        })
    }

    fn print<W: Write>(
        &self,
        out: &mut W,
        value: &Value,
        readable: impl Fn(&mut W, &Value) -> io::Result<()>,
    ) -> Result<u8, ItemsError> {
        if output::document(out, self.output, value)?.is_none() {
            readable(out, value).map_err(OutputError::from)?;
        }
        Ok(0)
    }
}

impl Named {
    /// Prints the item of this name.
    fn print(&self, out: &mut impl Write, all: &Value, kind: &str) -> Result<u8, ItemsError> {
        let found = all
            .as_array()
            .into_iter()
            .flatten()
            .find(|item| item.get("name").and_then(Value::as_str) == Some(self.name.as_str()));
        let found = found.ok_or_else(|| {
            ItemsError::Unknown(format!(
                "no {kind} {} is published to this caller; see mcpgw {kind}s list",
                self.name
            ))
        })?;
        // A definition is a document; people read YAML best.
        let format = match self.common.output {
            Format::Table => Format::Yaml,
            other => other,
        };
        output::document(out, format, found)?;
        Ok(0)
    }
}

impl Using {
    fn object(&self) -> Result<Map<String, Value>, ItemsError> {
        let mut object = match &self.json {
            None => Map::new(),
            Some(text) => match serde_json::from_str(text) {
                Ok(Value::Object(object)) => object,
                _ => return Err(ItemsError::Arguments("--json must be one JSON object".to_owned())),
            },
        };
        for argument in &self.arguments {
            let (name, value) = argument.split_once('=').ok_or_else(|| {
                ItemsError::Arguments(format!("{argument}: an argument is written name=value"))
            })?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
            object.insert(name.to_owned(), value);
        }
        Ok(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn using(arguments: &[&str], json: Option<&str>) -> Using {
        Using {
            name: "one_add".to_owned(),
            arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
            json: json.map(str::to_owned),
            common: Common {
                target: Target {
                    url: None,
                    extension: None,
                    token: None,
                    virtual_server: None,
                    timeout: 60,
                },
                output: Format::Table,
            },
        }
    }

    #[test]
    fn arguments_are_json_where_they_can_be_and_text_elsewhere() {
        let object = using(
            &["a=19", "city=Rome", "deep={\"x\":[1]}", "quoted=\"7\""],
            Some("{\"b\":23}"),
        )
        .object()
        .unwrap();
        assert_eq!(
            Value::Object(object),
            json!({"a": 19, "b": 23, "city": "Rome", "deep": {"x": [1]}, "quoted": "7"})
        );
    }

    #[test]
    fn what_is_no_argument_is_said() {
        let error = using(&["a"], None).object().unwrap_err();
        assert_eq!(error.to_string(), "a: an argument is written name=value");
        let error = using(&[], Some("[1]")).object().unwrap_err();
        assert_eq!(error.to_string(), "--json must be one JSON object");
    }
}
