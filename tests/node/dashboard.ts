// A dashboard's JSON as Grafana's own schema package types it, strict enough to refuse a wrong one.
//
// The package types are those of the code, where an enumeration's member is a name; in JSON it is that name's value: Wire<T>.
// A panel's options and its own field settings are `Record<string, unknown>` there: here they are those of the panel's type, told
// apart by `type`, so that a misspelt key, a wrong value and a foreign option are errors.
import type { AnnotationQuery, Dashboard, DataSourceRef, GraphFieldConfig, Panel, RowPanel, TableFieldOptions } from "@grafana/schema";
import type { Options as StatOptions } from "@grafana/schema/raw/stat";
import type { Options as TableOptions } from "@grafana/schema/raw/table";
import type { Options as TimeSeriesOptions } from "@grafana/schema/raw/timeseries";

export type Wire<T> = unknown extends T
  ? T
  : T extends string
    ? `${T}`
    : T extends number | boolean | null | undefined
      ? T
      : T extends (infer Item)[]
        ? Wire<Item>[]
        : { [Key in keyof T]: Wire<T[Key]> };

type Field<Custom> = Omit<Wire<NonNullable<Panel["fieldConfig"]>>, "defaults"> & {
  defaults: Omit<Wire<NonNullable<Panel["fieldConfig"]>["defaults"]>, "custom"> & { custom?: Partial<Wire<Custom>> };
};

type Of<Type extends string, Options, Custom> = Omit<Wire<Panel>, "type" | "options" | "fieldConfig" | "gridPos" | "id" | "title"> & {
  type: Type;
  id: number;
  title: string;
  gridPos: Wire<NonNullable<Panel["gridPos"]>>;
  options: Partial<Wire<Options>>;
  fieldConfig: Field<Custom>;
};

type Row = Omit<Wire<RowPanel>, "type" | "panels"> & { type: "row"; panels: never[] };

type Shown =
  | Of<"stat", StatOptions, Record<never, never>>
  | Of<"table", TableOptions, TableFieldOptions>
  | Of<"timeseries", TimeSeriesOptions, GraphFieldConfig>
  | Row;

// What the JSON plugin keeps of a query; the package cannot know it.
type Marks = Omit<Wire<AnnotationQuery>, "target" | "filter"> & {
  target: { refId: string; datasource: Wire<DataSourceRef>; editorMode: "code"; target: string; payload: string };
};

export type DashboardFile = Omit<Wire<Dashboard>, "panels" | "annotations"> & { panels: Shown[]; annotations?: { list?: Marks[] } };
