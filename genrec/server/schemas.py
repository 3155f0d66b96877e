"""What the service reads and answers, as the OpenAPI document shows it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from genrec.data.sources.cells import whole_number_as_text

_ItemText = Annotated[str, Field(min_length=1, max_length=500)]
_UserText = Annotated[str, Field(min_length=1, max_length=200)]
# A table with ids that are numbers is JSON with numbers to whoever asks.
ItemId = Annotated[_ItemText, BeforeValidator(whole_number_as_text, json_schema_input_type=_ItemText | int)]
History = Annotated[list[ItemId], Field(max_length=10_000)]
UserId = Annotated[_UserText, BeforeValidator(whole_number_as_text, json_schema_input_type=_UserText | int)]
Value = str | int | float | bool


class Body(BaseModel):
    """A request body: unknown keys are errors, and so is text that no database and no answer can hold."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _encodable(cls, values: Any) -> Any:
        check_text(values)
        return values


def check_text(value: Any) -> None:
    """Refuse NUL characters and halves of surrogate pairs anywhere in JSON values. Raises ValueError."""
    if isinstance(value, str):
        half = not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value)
        if half or "\x00" in value:
            raise ValueError("text holds a NUL character or half a surrogate pair")
    elif isinstance(value, dict):
        for key, inner in value.items():
            check_text(key)
            check_text(inner)
    elif isinstance(value, list):
        for inner in value:
            check_text(inner)


class RecommendationsRequest(Body):
    """A history, and what may come up."""

    history: History = Field(description="item ids, oldest first; empty for a new user")
    k: int = Field(10, ge=1, le=100)
    exclude: History = Field(default_factory=list)
    allow: dict[str, Value | list[Value]] = Field(
        default_factory=dict, description="attribute → value, or list of values of which one is enough"
    )
    at_most: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="attribute → how many items of the answer may share a value of it"
    )
    new_share: float = Field(0.0, ge=0, le=1, description="share of the places for items that nobody has used yet")

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"history": ["260", "1196"], "k": 5, "allow": {"genres": "Comedy"}}]},
    )


class RecommendedItem(BaseModel):
    """One recommended item; `score` is a sum of log-probabilities."""

    item_id: str
    title: str
    score: float
    rank: int


class RecommendationsResponse(BaseModel):
    """Up to `k` items, fewer where fewer are allowed."""

    items: list[RecommendedItem]
    catalog_version: str
    model: str


class ExplanationsRequest(Body):
    """Why this item for this history, or what is its taste? Styles, languages and tones: docs/explanations.md."""

    history: History
    item_id: ItemId | None = Field(None, description="needed by all styles but those of the person's taste")
    user_id: UserId | None = Field(None, description="brings in what this user of the run wrote")
    style: str = Field("line", max_length=40)
    language: str = Field("en", max_length=10, pattern=r"^[a-z]{2,3}$")
    tone: str = Field("plain", max_length=40)

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"history": ["260", "1196"], "item_id": "1210"},
                {"history": ["260", "1196"], "style": "taste"},
            ]
        },
    )


class StatementView(BaseModel):
    """A sentence of an explanation, and whether the facts bear it out."""

    text: str
    verdict: str
    reason: str


class ExplanationsResponse(BaseModel):
    """An explanation that cites its evidence; the text is empty where there is none, and `note` says so."""

    item_id: str | None = Field(description="null where the text is about the person's taste")
    title: str | None
    text: str
    source: str = Field(description="who wrote the text: `template`, `model`, or `none`")
    evidence: list[dict[str, Any]]
    statements: list[StatementView]
    note: str
    catalog_version: str


class ItemCard(BaseModel):
    """An item with what the catalogue says of it."""

    item_id: str
    title: str
    line: str = Field(description="its main facts in one line")
    facts: dict[str, Any]
    image: bool = Field(description="whether /v1/items/{item_id}/image answers")


class ItemResponse(ItemCard):
    """One item of the catalogue."""

    recommendable: bool = Field(description="false where it was removed from the catalogue")
    catalog_version: str


class ModelInfo(BaseModel):
    """The model of this service, as OpenAI's API lists it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "genrec"


class ModelList(BaseModel):
    """All models of this service: one."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]


class Health(BaseModel):
    """Whether the process is alive, or ready to answer."""

    status: str
    detail: str = ""
    catalog_version: str | None = None


class NewConversation(Body):
    """Whose conversation, and what they had used before."""

    user_id: UserId | None = None
    history: History = Field(default_factory=list)

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"user_id": "ada", "history": ["260", "1196"]}]}
    )


class NewMessage(Body):
    """What a user says. Sending the same `client_id` again does not say it twice."""

    text: str = Field(min_length=1, max_length=4000)
    client_id: str = Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")
    about: ItemId | None = Field(None, description='the item that "it" means in this message')

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"text": "Something like Alien, but older", "client_id": "m-00000001"}]},
    )


class NewFeedback(Body):
    """An opinion about an item; `cleared` takes an earlier one back."""

    item_id: ItemId
    kind: Literal["liked", "disliked", "seen", "cleared"]

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"item_id": "1214", "kind": "liked"}]})


class FilterChange(Body):
    """A filter that is taken back, named by its label."""

    remove: str = Field(min_length=1, max_length=1000)

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"remove": "no Comedy"}]})


class SegmentView(BaseModel):
    """A piece of a reply: words, or the title of an item."""

    text: str
    item_id: str | None = None


class TurnView(BaseModel):
    """One reply of the assistant."""

    act: str
    text: str
    segments: list[SegmentView]
    items: list[ItemCard]
    trace: list[str] = Field(description="what was understood and decided")
    catalog_version: str


class MessageView(BaseModel):
    """A message and its reply; null while it is unanswered."""

    client_id: str
    text: str
    created_at: str
    turn: TurnView | None


class StateView(BaseModel):
    """What the conversation remembers, with titles."""

    history: list[SegmentView]
    liked: list[SegmentView]
    disliked: list[SegmentView]
    seen: list[SegmentView]
    filters: list[str]


class ConversationView(BaseModel):
    """A conversation."""

    id: str
    user_id: str | None
    messages: list[MessageView]
    state: StateView


class TurnAnswer(BaseModel):
    """The reply to one message, and what the conversation remembers after it."""

    turn: TurnView
    state: StateView


class DeletedUser(BaseModel):
    """What was deleted."""

    user_id: str
    conversations: int


class Person(BaseModel):
    """A real user of the run whose history can be tried."""

    user_id: str
    history: list[str]
    last_titles: list[str]


class PageInfo(BaseModel):
    """What the chat page needs to begin."""

    model: str
    ready: bool
    detail: str
    people: list[Person]
    suggestions: list[str]
