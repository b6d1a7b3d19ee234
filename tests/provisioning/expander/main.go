// Fills in alert texts as Grafana 11.5 does: Prometheus' expander, Grafana's fields, missing keys invalid.
// A case is a line of JSON on stdin, and comes back with its "result" (null: it cannot be filled in).
//
//	go mod init expander && go get github.com/prometheus/prometheus@v0.301.0 && go mod tidy
//	python -m tests.provisioning.expander | go run main.go > tests/provisioning/go_templates.jsonl
package main

import (
	"context"
	"encoding/json"
	"io"
	"math"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/template"
)

type value struct {
	Labels map[string]string
	Value  float64
}

type data struct {
	Labels map[string]string
	Values map[string]value
	Value  string
}

type expansion struct {
	Labels   map[string]string   `json:"labels"`
	Result   *string             `json:"result"`
	Template string              `json:"template"`
	Values   map[string]*float64 `json:"values"`
}

func expand(one *expansion) {
	values := map[string]value{}
	for name, given := range one.Values {
		number := math.NaN()
		if given != nil {
			number = *given
		}
		values[name] = value{one.Labels, number}
	}
	query := func(context.Context, string, time.Time) (promql.Vector, error) { return nil, nil }
	head := "{{- $labels := .Labels -}}{{- $values := .Values -}}{{- $value := .Value -}}"
	expander := template.NewTemplateExpander(context.Background(), head+one.Template, "__alert_text", data{one.Labels, values, ""},
		model.Time(0), query, &url.URL{}, []string{"missingkey=invalid"})
	if found, err := expander.Expand(); err == nil {
		found = strings.ReplaceAll(found, "<no value>", "[no value]")
		one.Result = &found
	}
}

func main() {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for {
		var one expansion
		if err := in.Decode(&one); err == io.EOF {
			return
		} else if err != nil {
			panic(err)
		}
		expand(&one)
		if err := out.Encode(one); err != nil {
			panic(err)
		}
	}
}
