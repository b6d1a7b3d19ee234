// A dashboard's JSON in schema v2 as Grafana's own schema package types it (dashboard/v2beta1).
//
// There a panel's options and its own field settings may be anything: here they are those of the panel's type, as in dashboard.ts.
import type { Spec, PanelKind, VizConfigKind, FieldConfigSource, FieldConfig } from "@grafana/schema/v2beta1";
import type { GraphFieldConfig, TableFieldOptions } from "@grafana/schema";
import type { Options as StatOptions } from "@grafana/schema/raw/stat";
import type { Options as TableOptions } from "@grafana/schema/raw/table";
import type { Options as TimeSeriesOptions } from "@grafana/schema/raw/timeseries";
import type { Wire } from "dashboard";

type Fields<Custom> = Omit<FieldConfigSource, "defaults"> & { defaults: Omit<FieldConfig, "custom"> & { custom?: Partial<Wire<Custom>> } };

type Viz<Type extends string, Options, Custom> = Omit<VizConfigKind, "group" | "spec"> & {
  group: Type;
  spec: { options: Partial<Wire<Options>>; fieldConfig: Fields<Custom> };
};

type Shown =
  | Viz<"stat", StatOptions, Record<never, never>>
  | Viz<"table", TableOptions, TableFieldOptions>
  | Viz<"timeseries", TimeSeriesOptions, GraphFieldConfig>;

type Element = Omit<PanelKind, "spec"> & { spec: Omit<PanelKind["spec"], "vizConfig"> & { vizConfig: Shown } };

export type DashboardResource = {
  apiVersion: "dashboard.grafana.app/v2beta1";
  kind: "Dashboard";
  metadata: { name: string };
  spec: Omit<Spec, "elements"> & { elements: Record<string, Element> };
};
