"""The catalogue: what every metric means, where it is read, and how a Query becomes Statements."""

from app.catalog.entries import Catalogue, Event, Label, Metric
from app.catalog.loading import load, load_folder
from app.catalog.planning import Limits, Plan, plan_events, plan_query

__all__ = ["Catalogue", "Event", "Label", "Limits", "Metric", "Plan", "load", "load_folder", "plan_events", "plan_query"]
